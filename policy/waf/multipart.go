package waf

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	"github.com/corazawaf/coraza/v3/collection"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
)

// multipartParser takes bodies of forms apart for the engine, whose own parser
// writes what is uploaded to files. What is uploaded is counted, not looked at:
// its names are.
type multipartParser struct{}

// ProcessResponse implements plugintypes.BodyProcessor.
func (multipartParser) ProcessResponse(io.Reader, plugintypes.TransactionVariables, plugintypes.BodyProcessorOptions) error {
	return nil
}

// set sets a variable of the engine, whose interface only reads it.
func set(v collection.Single, value string) {
	if s, ok := v.(interface{ Set(string) }); ok {
		s.Set(value)
	}
}

var errNotMultipart = errors.New("not a multipart body")

// ProcessRequest implements plugintypes.BodyProcessor.
func (multipartParser) ProcessRequest(body io.Reader, v plugintypes.TransactionVariables, options plugintypes.BodyProcessorOptions) error {
	media, params, err := mime.ParseMediaType(options.Mime)
	if err == nil && (!strings.HasPrefix(media, "multipart/") || params["boundary"] == "") {
		err = errNotMultipart
	}
	if err != nil {
		set(v.MultipartStrictError(), "1")
		return err
	}
	cut := v.InboundDataError().Get() == "1"
	var size int64
	parts := multipart.NewReader(body, params["boundary"])
	for n := 0; ; n++ {
		// Raw: a service need not undo a transfer encoding, and rules see the field.
		p, err := parts.NextRawPart()
		switch {
		case err == io.EOF, cut && errors.Is(err, io.EOF), cut && errors.Is(err, io.ErrUnexpectedEOF):
			return nil // of what is looked at
		case err != nil:
			set(v.MultipartStrictError(), "1")
			return err
		case n >= options.ArgumentLimit:
			set(v.ArgumentsLimitReached(), "1")
			return nil
		}
		read, err := addPart(p, v)
		size += read
		set(v.FilesCombinedSize(), strconv.FormatInt(size, 10))
		switch {
		case err == nil:
		case cut && errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		default:
			set(v.MultipartStrictError(), "1")
			return err
		}
	}
}

// addPart gives a part to the rules: a field's value, a file's names.
func addPart(p *multipart.Part, v plugintypes.TransactionVariables) (size int64, err error) {
	d := readDisposition(p.Header["Content-Disposition"])
	for name, values := range p.Header {
		for _, value := range values {
			v.MultipartPartHeaders().Add(d.name, name+": "+value)
		}
		if len(values) > 1 {
			d.twice = true
		}
	}
	if d.twice {
		set(v.MultipartDuplicatePartHeader(), "1")
	}
	if d.quoted {
		set(v.MultipartInvalidQuoting(), "1")
	}
	if d.twice || d.quoted || d.malformed {
		set(v.MultipartStrictError(), "1")
	}
	v.MultipartName().Add(d.name, d.name)
	if len(d.files) == 0 {
		data, err := io.ReadAll(p)
		v.ArgsPost().Add(d.name, string(data))
		return int64(len(data)), err
	}
	size, err = io.Copy(io.Discard, p)
	for _, file := range d.files {
		v.MultipartFilename().Add(d.name, file)
		v.Files().Add("", file)
		v.FilesSizes().SetIndex(file, 0, strconv.FormatInt(size, 10))
	}
	if d.extended {
		v.MultipartFilenameCharset().Add(d.name, d.charset)
		v.MultipartFilenameLanguage().Add(d.name, d.language)
	}
	v.FilesNames().Add("", d.name)
	return size, err
}

// disposition is what a part says of itself. Who reads it differently may take
// another of the names for the file's, so all of them are files.
type disposition struct {
	name              string
	files             []string
	charset, language string // of a name in RFC 8187's form
	extended          bool
	twice             bool // something is there twice
	quoted            bool // a name in that form is quoted, too
	malformed         bool
}

func readDisposition(fields []string) (d disposition) {
	if len(fields) == 0 {
		return d
	}
	params, ok := parameters(fields[0])
	d.malformed = !ok
	seen := map[string]bool{}
	for _, p := range params {
		if seen[p.name] {
			d.twice = true
		}
		seen[p.name] = true
		switch {
		case p.name == "name":
			d.name = p.value
		case p.name == "filename" && p.value != "":
			d.files = append(d.files, p.value)
		case p.name == "filename*":
			d.extend(p)
		case strings.HasPrefix(p.name, "filename*"): // a name in pieces, which no browser sends
			d.files = append(d.files, p.value)
			d.malformed = true
		}
	}
	return d
}

// extend reads charset'language'name, percent-encoded.
func (d *disposition) extend(p parameter) {
	d.quoted = d.quoted || p.quoted
	pieces := strings.SplitN(p.value, "'", 3)
	if len(pieces) < 3 {
		d.malformed = true
		d.files = append(d.files, p.value)
		return
	}
	name, err := url.PathUnescape(pieces[2])
	if err != nil {
		name, d.malformed = pieces[2], true
	}
	if name != "" {
		d.files = append(d.files, name)
	}
	d.charset, d.language, d.extended = pieces[0], pieces[1], true
}

// parameter is name=value of a field. Names are in lower case.
type parameter struct {
	name, value string
	quoted      bool
}

// maxParameters bounds those of one field.
const maxParameters = 32

// parameters reads what follows the first semicolon, as far as it can be read; ok:
// to its end.
func parameters(field string) (list []parameter, ok bool) {
	_, rest, found := strings.Cut(field, ";")
	for found {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return list, true // a semicolon at the end
		}
		name, value, has := strings.Cut(rest, "=")
		if !has || len(list) == maxParameters {
			return list, false
		}
		p := parameter{name: strings.ToLower(strings.TrimSpace(name))}
		value = strings.TrimLeft(value, " \t")
		if p.quoted = strings.HasPrefix(value, `"`); p.quoted {
			p.value, rest, ok = unquote(value[1:])
			if !ok {
				return append(list, p), false
			}
			rest = strings.TrimLeft(rest, " \t")
			if rest != "" && rest[0] != ';' {
				return append(list, p), false
			}
			_, rest, found = strings.Cut(rest, ";")
		} else {
			p.value, rest, found = strings.Cut(value, ";")
			p.value = strings.TrimSpace(p.value)
		}
		list = append(list, p)
	}
	return list, true
}

// unquote reads to the closing quote. Browsers escape nothing but the quote, and
// some servers take a backslash for one: it stays before all other characters.
func unquote(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), "", false
}
