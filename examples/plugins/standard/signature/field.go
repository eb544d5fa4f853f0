package signature

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// The fields are structured ones (RFC 8941): dictionaries whose members are lists of
// strings with parameters, or byte sequences. No more than that is read.

const (
	// maxSignatures is how many signatures a request may have.
	maxSignatures = 8
	maxComponents = 64
)

// input is what a signature says it is made of.
type input struct {
	label   string
	covered []string
	// text is as it was sent, from the list on: it is a part of what is signed.
	text             string
	created, expires int64
	keyID            string
	algorithm, tag   string
	nonce            string
}

// derived are the components that are no fields.
var derived = map[string]bool{
	"@method": true, "@authority": true, "@scheme": true, "@target-uri": true,
	"@request-target": true, "@path": true, "@query": true,
}

// accepted is the Accept-Signature field: what a client is to sign.
func accepted(c config) string {
	quoted := make([]string, 0, len(c.Components)+1)
	for _, component := range c.Components {
		quoted = append(quoted, `"`+component+`"`)
	}
	if !c.BodyUnsigned {
		quoted = append(quoted, `"content-digest"`)
	}
	text := "sig=(" + strings.Join(quoted, " ") + ");created;keyid"
	if c.Nonce {
		text += ";nonce"
	}
	return text
}

// secretKey makes a JWK of a secret.
func secretKey(encoded string) (string, error) {
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", errors.New("secret: want base64")
	}
	jwk, err := json.Marshal(map[string]string{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)})
	return string(jwk), err
}

// joined is a field's values with commas between, as RFC 9421, section 2.1, wants it.
func joined(h sdk.Header, name string) string {
	all, _ := combined(h, name)
	return all
}

func combined(h sdk.Header, name string) (all string, there bool) {
	first, there := h.Lookup(name)
	if !there {
		return "", false
	}
	count := 0
	for field, value := range h.All() {
		if strings.EqualFold(field, name) {
			value = strings.Trim(value, " \t")
			if count++; count > 1 {
				all += ", " + value
			} else {
				all = value
			}
		}
	}
	if count == 0 { // a field that hosts keep apart, such as host
		all = strings.Trim(first, " \t")
	}
	return all, true
}

// base is what is signed (RFC 9421, section 2.5).
func (in *input) base(r *sdk.Request) ([]byte, error) {
	var b []byte
	for _, component := range in.covered {
		value, err := valueOf(r, component)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, '"'), component...), `": `...)
		b = append(append(b, value...), '\n')
	}
	return append(append(b, `"@signature-params": `...), in.text...), nil
}

func valueOf(r *sdk.Request, component string) (string, error) {
	path, query, _ := strings.Cut(r.Path(), "?")
	switch component {
	case "@method":
		return r.Method(), nil
	case "@authority":
		return authority(r), nil
	case "@scheme":
		return r.Scheme(), nil
	case "@target-uri":
		return r.Scheme() + "://" + authority(r) + r.Path(), nil
	case "@request-target":
		return r.Path(), nil
	case "@path":
		return path, nil
	case "@query":
		return "?" + query, nil
	}
	value, there := combined(r.Header, component)
	if !there {
		return "", refusal("it covers " + component + ", which is not there")
	}
	return value, nil
}

// authority is normalised: in lower case, without the scheme's own port.
func authority(r *sdk.Request) string {
	a := strings.ToLower(r.Authority())
	if r.Scheme() == "https" {
		return strings.TrimSuffix(a, ":443")
	}
	return strings.TrimSuffix(a, ":80")
}

// reader walks over a field.
type reader struct {
	text string
	at   int
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) space() {
	for r.peek() == ' ' || r.peek() == '\t' {
		r.at++
	}
}

// key reads a name: lower case letters, digits, and some marks.
func (r *reader) key() string {
	from := r.at
	for c := r.peek(); 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.' || c == '*'; c = r.peek() {
		r.at++
	}
	return r.text[from:r.at]
}

// quoted reads a string. No escapes: neither components nor the ids of keys need any.
func (r *reader) quoted() (string, bool) {
	if !r.take('"') {
		return "", false
	}
	end := strings.IndexAny(r.text[r.at:], `"\`)
	if end < 0 || r.text[r.at+end] == '\\' {
		return "", false
	}
	s := r.text[r.at : r.at+end]
	r.at += end + 1
	return s, true
}

// sequence reads bytes: :base64:.
func (r *reader) sequence() ([]byte, bool) {
	if !r.take(':') {
		return nil, false
	}
	end := strings.IndexByte(r.text[r.at:], ':')
	if end < 0 {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(r.text[r.at : r.at+end])
	r.at += end + 1
	return b, err == nil
}

// members calls f at the value of each member of a dictionary.
func (r *reader) members(f func(label string) bool) bool {
	for n := 0; ; n++ {
		r.space()
		label := r.key()
		if n == maxSignatures || label == "" || !r.take('=') || !f(label) {
			return false
		}
		r.space()
		if r.at == len(r.text) {
			return true
		}
		if !r.take(',') {
			return false
		}
	}
}

func parseInputs(field string) ([]input, error) {
	var all []input
	r := reader{text: field}
	ok := r.members(func(label string) bool {
		in := input{label: label}
		from := r.at
		if !r.list(&in) || !r.parameters(&in) {
			return false
		}
		in.text = field[from:r.at]
		all = append(all, in)
		return true
	})
	if !ok {
		return nil, refusal("Signature-Input cannot be read")
	}
	return all, nil
}

// list reads the components. Ones with parameters are not known here, and what is
// covered twice is no signature.
func (r *reader) list(in *input) bool {
	if !r.take('(') {
		return false
	}
	for {
		r.space()
		if r.take(')') {
			return true
		}
		component, ok := r.quoted()
		if !ok || r.peek() == ';' || len(in.covered) == maxComponents || slices.Contains(in.covered, component) || component != strings.ToLower(component) {
			return false
		}
		if strings.HasPrefix(component, "@") && !derived[component] {
			return false
		}
		in.covered = append(in.covered, component)
	}
}

func (r *reader) parameters(in *input) bool {
	seen := map[string]bool{}
	for r.take(';') {
		r.space()
		name := r.key()
		if name == "" || seen[name] || !r.take('=') {
			return false
		}
		seen[name] = true
		if !r.parameter(in, name) {
			return false
		}
	}
	return true
}

func (r *reader) parameter(in *input, name string) (ok bool) {
	switch name {
	case "created", "expires":
		from := r.at
		for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
			r.at++
		}
		n, err := strconv.ParseInt(r.text[from:r.at], 10, 52)
		if name == "created" {
			in.created = n
		} else {
			in.expires = n
		}
		return err == nil
	case "keyid":
		in.keyID, ok = r.quoted()
	case "alg":
		in.algorithm, ok = r.quoted()
	case "tag":
		in.tag, ok = r.quoted()
	case "nonce":
		in.nonce, ok = r.quoted()
	}
	return ok // others are not known
}

func parseSignatures(field string) (map[string][]byte, error) {
	all := map[string][]byte{}
	r := reader{text: field}
	ok := r.members(func(label string) bool {
		b, ok := r.sequence()
		all[label] = b
		return ok
	})
	if !ok {
		return nil, refusal("Signature cannot be read")
	}
	return all, nil
}

// digest is a Content-Digest.
type digest struct {
	hash sdk.Hash
	sum  []byte
}

// parseDigest takes the first that is known of a field's digests.
func parseDigest(field string) (digest, error) {
	var found digest
	r := reader{text: field}
	ok := r.members(func(name string) bool {
		sum, ok := r.sequence()
		for known, hash := range map[string]sdk.Hash{"sha-256": sdk.SHA256, "sha-512": sdk.SHA512} {
			if name == known {
				found = digest{hash, sum}
			}
		}
		return ok
	})
	if !ok || found.sum == nil {
		return digest{}, errors.New("Content-Digest has neither sha-256 nor sha-512")
	}
	return found, nil
}

func (d digest) of(body []byte) (bool, error) {
	sum, err := sdk.Digest(d.hash, body)
	return err == nil && string(sum) == string(d.sum), err
}
