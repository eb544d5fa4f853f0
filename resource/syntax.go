package resource

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The syntax of single values. Each function returns what is wrong with a
// value, with a suggestion where there is a likely one, or "".

// checkLabel: a DNS label (RFC 1123), what names are made of.
func checkLabel(s string) string {
	switch {
	case s == "":
		return "is required"
	case len(s) > 63:
		return fmt.Sprintf("is %d bytes long; a name has at most 63", len(s))
	case isLabel(s):
		return ""
	}
	problem := fmt.Sprintf("%q is not a name: use lower-case letters, digits and '-', beginning and ending with a letter or digit", s)
	if better := toLabel(s); isLabel(better) {
		problem += fmt.Sprintf(", such as %q", better)
	}
	return problem
}

func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		inside := i > 0 && i < len(s)-1
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && inside) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// toLabel is the name that s was probably meant to be; it may be none.
func toLabel(s string) string {
	better := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case r == '_' || r == '.' || r == ' ' || r == '/' || r == '-':
			return '-'
		}
		return -1
	}, s)
	return strings.Trim(better, "-")
}

// checkHostname: exact, or with a leading "*." label where a wildcard may
// stand, in the syntax of the Gateway API: lower case, no address, no port.
func checkHostname(s string, wildcard bool) string {
	name := s
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		if !wildcard {
			return fmt.Sprintf("%q must be one host: a wildcard cannot stand here", s)
		}
		name = rest
	}
	switch lower := strings.ToLower(s); {
	case s == "":
		return "is empty; leave it out for every host"
	case len(s) > 253:
		return fmt.Sprintf("is %d bytes long; a hostname has at most 253", len(s))
	case strings.Contains(s, "://"):
		return fmt.Sprintf("%q is a URL; give the host alone", s)
	case isAddress(s):
		return fmt.Sprintf("%q is an IP address; give a hostname, or leave it out for every host", s)
	case strings.Contains(s, ":"):
		return fmt.Sprintf("%q must not hold a port; the listener has one", s)
	case strings.HasSuffix(s, "."):
		return fmt.Sprintf("%q must not end with a dot", s)
	case lower != s:
		return fmt.Sprintf("%q must be lower case: %q", s, lower)
	case strings.Contains(name, "*"):
		return fmt.Sprintf("%q: a wildcard is one leading label, such as \"*.example.com\"", s)
	case !isDomain(name):
		return fmt.Sprintf("%q is not a hostname such as \"shop.example.com\"", s)
	}
	return ""
}

func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

// checkPort: 1 to 65535.
func checkPort(port uint32) string {
	if port < 1 || port > 65535 {
		return fmt.Sprintf("must be from 1 to 65535, not %d", port)
	}
	return ""
}

// checkEndpoint: an IP address or DNS name, and a port.
func checkEndpoint(s string) string {
	const form = `"host:port", such as "127.0.0.1:9001", "[::1]:9001" or "books.internal:9001"`
	if s == "" {
		return "is required: " + form
	}
	if _, rest, ok := strings.Cut(s, "://"); ok {
		return fmt.Sprintf("%q must be %s, without a scheme: %q", s, form, strings.TrimSuffix(rest, "/"))
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") || isAddress(s) {
		return fmt.Sprintf("%q has no port; write %s", s, form)
	}
	host, port := s[:colon], s[colon+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return fmt.Sprintf("%q: the port must be from 1 to 65535, not %q", s, port)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		address, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !address.Is6() || !strings.HasSuffix(host, "]") {
			return fmt.Sprintf("%q: %s is not an IPv6 address in brackets", s, host)
		}
		return ""
	}
	if isAddress(host) && strings.Contains(host, ":") {
		return fmt.Sprintf("%q: put the IPv6 address into brackets: %q", s, "["+host+"]:"+port)
	}
	// Resolvers also know names with "_", which no certificate or URL may bear.
	if name := strings.ReplaceAll(strings.ToLower(host), "_", "x"); !isAddress(host) && !isDomain(name) {
		return fmt.Sprintf("%q: %q is neither an IP address nor a DNS name", s, host)
	}
	return ""
}

// checkPath: a path as the Gateway API takes it for Exact and PathPrefix. What
// a normalised request path never holds could never match.
func checkPath(s string) string {
	switch {
	case s == "":
		return `is required and starts with "/"`
	case len(s) > 1024:
		return fmt.Sprintf("is %d bytes long; a path has at most 1024", len(s))
	case s[0] != '/':
		return fmt.Sprintf(`%q must start with "/": %q`, s, "/"+s)
	case strings.Contains(s, "//"):
		return fmt.Sprintf(`%q must not contain "//"`, s)
	case strings.Contains(s+"/", "/./"), strings.Contains(s+"/", "/../"):
		return fmt.Sprintf(`%q must not contain "." or ".." as a segment`, s)
	case strings.Contains(strings.ToLower(s), "%2f"):
		return fmt.Sprintf("%q must not contain an encoded slash (%%2F)", s)
	case strings.ContainsAny(s, "?#"):
		return fmt.Sprintf("%q must be a path alone; match the query with queryParams", s)
	case strings.Contains(s, "*"):
		return fmt.Sprintf("%q: a path holds no wildcard; use type PathPrefix, or RegularExpression", s)
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			i += 2
		case !isPathByte(s[i]):
			return fmt.Sprintf("%q holds %q, which a path must percent-encode", s, s[i:i+1])
		}
	}
	return ""
}

func isPathByte(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("/-._~!$&'()+,;=:@", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// checkRegexp: RE2 syntax. It is matched against the whole value, so it must
// also compile between anchors.
func checkRegexp(s string) string {
	switch {
	case s == "":
		return "is required: a regular expression (RE2 syntax)"
	case len(s) > 1024:
		return fmt.Sprintf("is %d bytes long; a regular expression has at most 1024", len(s))
	}
	_, err := regexp.Compile(s)
	if err == nil {
		_, err = regexp.Compile("^(?:" + s + ")$")
	}
	if err != nil {
		cause := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		return fmt.Sprintf("%q is not a regular expression (RE2 syntax): %s", s, cause)
	}
	return ""
}

// checkHeaderName: a token of RFC 9110, section 5.6.2.
func checkHeaderName(s string) string {
	switch {
	case s == "":
		return "is required"
	case len(s) > 256:
		return fmt.Sprintf("is %d bytes long; a header name has at most 256", len(s))
	case !isToken(s):
		return fmt.Sprintf("%q is not a header name: use letters, digits and '-'", s)
	}
	return ""
}

func isToken(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// checkHeaderValue: a field value of RFC 9110, section 5.5.
func checkHeaderValue(s string) string {
	if len(s) > 4096 {
		return fmt.Sprintf("is %d bytes long; a header value has at most 4096", len(s))
	}
	if strings.Trim(s, " \t") != s {
		return fmt.Sprintf("%q must not begin or end with a blank", s)
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("%q holds the control character %q", s, s[i:i+1])
		}
	}
	return ""
}

// checkMethod: an upper-case token; methods are matched as they are written.
func checkMethod(s string) string {
	switch upper := strings.ToUpper(s); {
	case len(s) > 32 || !isToken(s):
		return fmt.Sprintf("%q is not an HTTP method such as GET", s)
	case upper != s:
		return fmt.Sprintf("%q must be upper case: %q", s, upper)
	}
	return ""
}

// checkDigest: "sha256:" and 64 lower-case hexadecimal digits.
func checkDigest(s string) string {
	const form = `"sha256:" and 64 lower-case hexadecimal digits, as "weir plugin push" prints it`
	if s == "" {
		return "is required: " + form
	}
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return fmt.Sprintf("%q is not %s", s, form)
	}
	return ""
}

// checkLabelKey: a name of up to 63 bytes, after an optional "domain/".
func checkLabelKey(s string) string {
	name := s
	if prefix, rest, ok := strings.Cut(s, "/"); ok {
		if !isDomain(prefix) {
			return fmt.Sprintf("%q: %q before the '/' is not a domain", s, prefix)
		}
		name = rest
	}
	if name == "" || !isLabelText(name) {
		return fmt.Sprintf("%q is not a label key: use up to 63 letters, digits, '-', '_' and '.', "+
			"beginning and ending with a letter or digit", s)
	}
	return ""
}

func checkLabelValue(s string) string {
	if !isLabelText(s) {
		return fmt.Sprintf("%q is not a label value: use up to 63 letters, digits, '-', '_' and '.', "+
			"beginning and ending with a letter or digit", s)
	}
	return ""
}

func isLabelText(s string) bool {
	for i := range len(s) {
		inside := i > 0 && i < len(s)-1
		if !isAlphanumeric(s[i]) && !(inside && strings.IndexByte("-_.", s[i]) >= 0) {
			return false
		}
	}
	return len(s) <= 63
}
