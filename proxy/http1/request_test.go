package http1_test

import (
	"fmt"
	"strings"
	"testing"
)

// verdict is a case of a table: what is read, and what it becomes.
type verdict struct{ name, raw, want string }

func checkVerdicts(t *testing.T, parse func(string) string, cases []verdict) {
	t.Helper()
	for _, c := range cases {
		if got := parse(c.raw); got != c.want {
			t.Errorf("%s: %q\n got %s\nwant %s", c.name, c.raw, got, c.want)
		}
	}
}

// around puts a request line and a Host around the fields of a case.
func around(fields string) string { return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }

func parseFields(fields string) string { return parse(around(fields)) }

func TestRequestLine(t *testing.T) {
	const rest = "\r\nHost: a\r\n\r\n"
	checkVerdicts(t, func(line string) string { return parse(line + rest) }, []verdict{
		{"origin form", "GET /a/b?c=d&e HTTP/1.1", "GET a /a/b?c=d&e"},
		{"any token is a method", "M-SEARCH! / HTTP/1.1", "M-SEARCH! a /"},
		{"methods are sensitive to case", "get / HTTP/1.1", "get a /"},
		{"an octet beyond ASCII in a path passes", "GET /\xc3\xa9 HTTP/1.1", "GET a /\xc3\xa9"},
		{"HTTP/1.0", "GET / HTTP/1.0", "GET a / 1.0 (close)"},
		{"asterisk form", "OPTIONS * HTTP/1.1", "OPTIONS a *"},
		{"asterisk form is for OPTIONS alone", "GET * HTTP/1.1", "400"},
		{"absolute form names the authority", "GET http://b:81/p?q HTTP/1.1", "GET b:81 /p?q"},
		{"absolute form, the scheme in any case", "GET HTTPS://b/p HTTP/1.1", "GET b /p"},
		{"absolute form without a path", "GET http://b HTTP/1.1", "GET b /"},
		{"absolute form with a query alone", "GET http://b?q HTTP/1.1", "GET b /?q"},
		{"absolute form without a host", "GET http:///p HTTP/1.1", "400"},
		{"absolute form with user information", "GET http://u:p@b/ HTTP/1.1", "400"},
		{"absolute form of another scheme", "GET ftp://b/ HTTP/1.1", "400"},
		{"absolute form with an encoded host", "GET http://%62/ HTTP/1.1", "400"},
		{"authority form", "CONNECT b:443 HTTP/1.1", "CONNECT b:443 / (close)"},
		{"authority form with an address", "CONNECT [::1]:443 HTTP/1.1", "CONNECT [::1]:443 / (close)"},
		{"authority form without a port", "CONNECT b HTTP/1.1", "400"},
		{"authority form with an empty port", "CONNECT b: HTTP/1.1", "400"},
		{"authority form with a signed port", "CONNECT b:+443 HTTP/1.1", "400"},
		{"authority form with an address alone", "CONNECT [::1] HTTP/1.1", "400"},
		{"authority form is for CONNECT alone", "GET b:443 HTTP/1.1", "400"},
		{"CONNECT in origin form", "CONNECT /b:443 HTTP/1.1", "400"},
		{"neither a path nor a URL", "GET index.html HTTP/1.1", "400"},
		{"an empty target", "GET  HTTP/1.1", "400"},
		{"no target", "GET HTTP/1.1", "400"},
		{"two spaces after the method", "GET  / HTTP/1.1", "400"},
		{"two spaces before the version", "GET /  HTTP/1.1", "400"},
		{"a space in the target", "GET /a b HTTP/1.1", "400"},
		{"a tab between the parts", "GET\t/\tHTTP/1.1", "400"},
		{"a tab in the target", "GET /a\tb HTTP/1.1", "400"},
		{"a space before the method", " GET / HTTP/1.1", "400"},
		{"a space behind the version", "GET / HTTP/1.1 ", "400"},
		{"a fragment", "GET /a#b HTTP/1.1", "400"},
		{"NUL in the target", "GET /\x00 HTTP/1.1", "400"},
		{"DEL in the target", "GET /\x7f HTTP/1.1", "400"},
		{"CR in the target", "GET /\r HTTP/1.1", "400"},
		{"CR at the end of the line", "GET / HTTP/1.1\r", "400"},
		{"percent-encoding", "GET /%41%c3%A9 HTTP/1.1", "GET a /%41%c3%A9"},
		{"a percent sign that encodes nothing", "GET /%zz HTTP/1.1", "400"},
		{"a percent sign cut short", "GET /%4 HTTP/1.1", "400"},
		{"a percent sign alone in a query passes", "GET /?a=100% HTTP/1.1", "GET a /?a=100%"},
		{"a method that is no token", "GE(T / HTTP/1.1", "400"},
		{"no method", "/ HTTP/1.1", "400"},
		{"no version (HTTP/0.9)", "GET /", "400"},
		{"HTTP/1.2", "GET / HTTP/1.2", "505"},
		{"HTTP/2's preface", "PRI * HTTP/2.0", "505"},
		{"HTTP/01.1", "GET / HTTP/01.1", "400"},
		{"a version in lower case", "GET / http/1.1", "400"},
		{"a version cut short", "GET / HTTP/1", "400"},
	})
}

func TestEmptyLinesBeforeARequest(t *testing.T) {
	request := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	checkVerdicts(t, parse, []verdict{
		{"a few are ignored", "\r\n\r\n" + request, "GET a /"},
		{"many are not", strings.Repeat("\r\n", 9) + request, "400"},
		{"a bare line feed is not", "\n" + request, "400"},
		{"a request is not looked for behind something else", "x\r\n" + request, "400"},
		{"TLS on a plain port is known by its first byte", "\x16\x03\x01", "400"},
		{"nothing yet", "", "more"},
		{"an empty line and nothing yet", "\r\n\r", "more"},
	})
}

func TestHost(t *testing.T) {
	const line = "GET / HTTP/1.1\r\n"
	checkVerdicts(t, func(s string) string { return parse(s + "\r\n") }, []verdict{
		{"a name", line + "Host: shop.example\r\n", "GET shop.example /"},
		{"a name and a port", line + "hOST: shop.example:8080\r\n", "GET shop.example:8080 /"},
		{"a name and an empty port", line + "Host: a:\r\n", "GET a: /"},
		{"IPv6", line + "Host: [::1]:80\r\n", "GET [::1]:80 /"},
		{"empty is allowed", line + "Host:\r\n", "GET  /"},
		{"missing", line, "400"},
		{"missing in HTTP/1.0", "GET / HTTP/1.0\r\n", "GET  / 1.0 (close)"},
		{"twice", line + "Host: a\r\nHost: b\r\n", "400"},
		{"twice the same", line + "Host: a\r\nhost: a\r\n", "400"},
		{"twice, one of them empty", line + "Host:\r\nHost: a\r\n", "400"},
		{"twice in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", "400"},
		{"an absolute target overrides it", "GET http://b/ HTTP/1.1\r\nHost: a\r\n", "GET b /"},
		{"an absolute target does not replace it", "GET http://b/ HTTP/1.1\r\n", "400"},
		{"overridden, it must be valid still", "GET http://b/ HTTP/1.1\r\nHost: a/b\r\n", "400"},
		{"overridden, it may not be repeated", "GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "400"},
		{"a list", line + "Host: a, b\r\n", "400"},
		{"a space inside", line + "Host: a b\r\n", "400"},
		{"a path", line + "Host: a/b\r\n", "400"},
		{"user information", line + "Host: u@a\r\n", "400"},
		{"a query", line + "Host: a?b\r\n", "400"},
		{"a fragment", line + "Host: a#b\r\n", "400"},
		{"a backslash", line + "Host: a\\b\r\n", "400"},
		{"percent-encoding", line + "Host: %61\r\n", "400"},
		{"an octet beyond ASCII", line + "Host: \xe9\r\n", "400"},
		{"two ports", line + "Host: a:80:81\r\n", "400"},
		{"a port that is no number", line + "Host: a:8o\r\n", "400"},
		{"IPv6 without brackets", line + "Host: ::1\r\n", "400"},
		{"an open bracket", line + "Host: [::1\r\n", "400"},
		{"something behind the bracket", line + "Host: [::1]a\r\n", "400"},
		{"a bracket in the middle", line + "Host: a[::1]\r\n", "400"},
	})
}

func TestFieldSyntax(t *testing.T) {
	checkVerdicts(t, parseFields, []verdict{
		{"order and case are kept", "X-b: 1\r\nx-A: 2\r\nX-b: 3\r\n", "GET a / X-b=1 x-A=2 X-b=3"},
		{"white space around a value is not part of it", "A: \t b c \t\r\nB:d\r\n", "GET a / A=b c B=d"},
		{"a value may be empty", "A:\r\nB: \r\n", "GET a / A= B="},
		{"a tab inside a value", "A: b\tc\r\n", "GET a / A=b\tc"},
		{"octets beyond ASCII (obs-text)", "A: \x80\xff\r\n", "GET a / A=\x80\xff"},
		{"every character of a token", "!#$%&'*+-.^_`|~09azAZ: b\r\n", "GET a / !#$%&'*+-.^_`|~09azAZ=b"},
		{"a colon in a value", "A: b:c\r\n", "GET a / A=b:c"},
		{"white space before the colon", "A : b\r\n", "400"},
		{"a tab before the colon", "A\t: b\r\n", "400"},
		{"white space before the name", " A: b\r\n", "400"},
		{"a folded line", "A: b\r\n c\r\n", "400"},
		{"a folded line, by a tab", "A: b\r\n\tc\r\n", "400"},
		{"no colon", "A\r\n", "400"},
		{"no name", ": b\r\n", "400"},
		{"a space in a name", "A B: c\r\n", "400"},
		{"a control character in a name", "A\x01: b\r\n", "400"},
		{"an octet beyond ASCII in a name", "\xc3\xa9: b\r\n", "400"},
		{"a parenthesis in a name", "A(: b\r\n", "400"},
		{"NUL in a value", "A: b\x00c\r\n", "400"},
		{"DEL in a value", "A: b\x7f\r\n", "400"},
		{"a control character in a value", "A: \x1bc\r\n", "400"},
		{"a bare CR in a value", "A: b\rc\r\n", "400"},
		{"a bare CR at the end of a value", "A: b\r\r\n", "400"},
		{"a bare LF ends a line", "A: b\nC: d\r\n", "400"},
		{"a bare LF in a name", "A\n: b\r\n", "400"},
		{"a bare LF ends the head", "A: b\r\n\n", "400"},
		{"a vertical tab around a value", "A:\vb\r\n", "400"},
	})
	checkVerdicts(t, parse, []verdict{
		{"a bare LF ends the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", "400"},
		{"bare LFs everywhere", "GET / HTTP/1.1\nHost: a\n\n", "400"},
		{"white space between the request line and the first field", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", "400"},
		{"what follows is not looked at", around("") + "\x00 anything", `GET a / then "\x00 anything"`},
	})
}

func TestContentLength(t *testing.T) {
	checkVerdicts(t, parseFields, []verdict{
		{"a number", "Content-Length: 5\r\n", "GET a / Content-Length=5 (5 bytes)"},
		{"zero", "Content-Length: 0\r\n", "GET a / Content-Length=0 (0 bytes)"},
		{"the name in any case", "cONTENT-lENGTH: 5\r\n", "GET a / cONTENT-lENGTH=5 (5 bytes)"},
		{"leading zeros", "Content-Length: 007\r\n", "GET a / Content-Length=007 (7 bytes)"},
		{"as large as can be", "Content-Length: 999999999999999999\r\n", "GET a / Content-Length=999999999999999999 (999999999999999999 bytes)"},
		{"larger", "Content-Length: 1000000000000000000\r\n", "400"},
		{"so large that it wraps around", "Content-Length: 18446744073709551621\r\n", "400"},
		{"repeated", "Content-Length: 5\r\nContent-Length: 6\r\n", "400"},
		{"repeated, the same", "Content-Length: 5\r\nContent-Length: 5\r\n", "400"},
		{"a list", "Content-Length: 5, 6\r\n", "400"},
		{"a list of the same", "Content-Length: 5, 5\r\n", "400"},
		{"empty", "Content-Length:\r\n", "400"},
		{"a plus sign", "Content-Length: +5\r\n", "400"},
		{"a minus sign", "Content-Length: -1\r\n", "400"},
		{"a space inside", "Content-Length: 1 2\r\n", "400"},
		{"hexadecimal", "Content-Length: 0x5\r\n", "400"},
		{"a fraction", "Content-Length: 5.0\r\n", "400"},
		{"an underscore", "Content-Length: 1_0\r\n", "400"},
		{"something behind it", "Content-Length: 5;a\r\n", "400"},
		{"digits of another script", "Content-Length: \xd9\xa5\r\n", "400"},
	})
}

func TestTransferEncoding(t *testing.T) {
	checkVerdicts(t, parseFields, []verdict{
		{"chunked", "Transfer-Encoding: chunked\r\n", "GET a / (chunked)"},
		{"in any case", "TRANSFER-encoding: ChUnKeD\r\n", "GET a / (chunked)"},
		{"white space around it", "Transfer-Encoding:\t chunked \t\r\n", "GET a / (chunked)"},
		{"beside a Content-Length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "400"},
		{"behind a Content-Length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "400"},
		{"behind an empty body", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "400"},
		{"another coding below it", "Transfer-Encoding: gzip, chunked\r\n", "501"},
		{"another coding above it", "Transfer-Encoding: chunked, gzip\r\n", "400"},
		{"another coding alone", "Transfer-Encoding: gzip\r\n", "400"},
		{"identity", "Transfer-Encoding: identity\r\n", "400"},
		{"identity below it", "Transfer-Encoding: identity, chunked\r\n", "501"},
		{"twice in a list", "Transfer-Encoding: chunked, chunked\r\n", "400"},
		{"twice in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400"},
		{"in two fields, the last one another", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "400"},
		{"in two fields, the first one another", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "400"},
		{"empty", "Transfer-Encoding:\r\n", "400"},
		{"an empty element", "Transfer-Encoding: ,chunked\r\n", "501"},
		{"an empty last element", "Transfer-Encoding: chunked,\r\n", "400"},
		{"a name that ends the same", "Transfer-Encoding: xchunked\r\n", "400"},
		{"a name that begins the same", "Transfer-Encoding: chunkedx\r\n", "400"},
		{"a parameter", "Transfer-Encoding: chunked;q=1\r\n", "400"},
		{"quoted", "Transfer-Encoding: \"chunked\"\r\n", "400"},
		{"a vertical tab before it", "Transfer-Encoding: \vchunked\r\n", "400"},
		{"a form feed behind it", "Transfer-Encoding: chunked\f\r\n", "400"},
		{"NUL behind it", "Transfer-Encoding: chunked\x00\r\n", "400"},
		{"a space in the name", "Transfer Encoding: chunked\r\n", "400"},
		{"an underscore in the name is another field", "Transfer_Encoding: chunked\r\n", "GET a / Transfer_Encoding=chunked"},
		{"a space before the colon", "Transfer-Encoding : chunked\r\n", "400"},
		{"on a line of its own", "Transfer-Encoding:\r\n chunked\r\n", "400"},
	})
	checkVerdicts(t, parse, []verdict{
		{"in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
	})
}

func TestConnection(t *testing.T) {
	names := func(n int) (s string) {
		for i := range n {
			s += fmt.Sprintf("n%d, ", i)
		}
		return s
	}
	checkVerdicts(t, parseFields, []verdict{
		{"close", "Connection: close\r\n", "GET a / (close)"},
		{"close, in any case and company", "Connection: x, , CLOSE \r\n", "GET a / (close)"},
		{"keep-alive is what HTTP/1.1 does", "Connection: keep-alive\r\n", "GET a /"},
		{"close wins", "Connection: keep-alive\r\nConnection: close\r\n", "GET a / (close)"},
		{"the fields it names go no further", "X-A: 1\r\nConnection: x-a, X-B\r\nX-B: 2\r\nX-C: 3\r\nx-b: 4\r\n", "GET a / X-C=3"},
		{"so do those named by another one", "X-A: 1\r\nConnection: close\r\nConnection: x-a\r\nConnection: x-b\r\nX-B: 2\r\n", "GET a / (close)"},
		{"it may name itself", "Connection: connection, x-a\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 1\r\n", "GET a /"},
		{"what frames the message cannot be named away", "Connection: content-length\r\nContent-Length: 5\r\n", "GET a / Content-Length=5 (5 bytes)"},
		{"nor the coding", "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "GET a / (chunked)"},
		{"nor the host", "Connection: host\r\n", "GET a /"},
		{"sixteen names are enough for everyone", "Connection: " + names(16) + "\r\nn15: 1\r\n", "GET a /"},
		{"more are not looked for", "Connection: " + names(17) + "\r\nn16: 1\r\n", "400"},
		{"fields of this hop", "Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nTE: trailers\r\nUpgrade: h2c\r\n", "GET a /"},
		{"fields that look like them", "Keep_Alive: 1\r\nTX: 1\r\nTrailer: a\r\n", "GET a / Keep_Alive=1 TX=1 Trailer=a"},
	})
	checkVerdicts(t, parse, []verdict{
		{"HTTP/1.0 closes", "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET a / 1.0 (close)"},
		{"HTTP/1.0 may ask not to", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "GET a / 1.0"},
		{"HTTP/1.0 may ask for both", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", "GET a / 1.0 (close)"},
	})
}

func TestExpect(t *testing.T) {
	checkVerdicts(t, parseFields, []verdict{
		{"100-continue", "Expect: 100-continue\r\nContent-Length: 5\r\n", "GET a / Content-Length=5 (5 bytes) (waits)"},
		{"in any case", "EXPECT: 100-Continue\r\n", "GET a / (waits)"},
		{"something else", "Expect: 200-ok\r\n", "417"},
		{"a list", "Expect: 100-continue, x\r\n", "417"},
	})
	checkVerdicts(t, parse, []verdict{
		{"HTTP/1.0 knows no interim answer", "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", "GET  / 1.0 (close)"},
	})
}

func TestHeadLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	checkVerdicts(t, parse, []verdict{
		{"a long request line", "GET /" + long(16<<10-14) + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET a /" + long(16<<10-14)},
		{"a longer one", "GET /" + long(16<<10-13) + " HTTP/1.1\r\nHost: a\r\n\r\n", "414"},
		{"one whose end is not there yet", "GET /" + long(16<<10-4), "414"},
		{"a large head", around("A: " + long(60<<10) + "\r\n"), "GET a / A=" + long(60<<10)},
		{"a larger one", around("A: " + long(64<<10) + "\r\n"), "431"},
		{"one whose end is not there yet", "GET / HTTP/1.1\r\nA: " + long(64<<10), "431"},
		{"many fields", around(strings.Repeat("A: b\r\n", 128)), "GET a /" + strings.Repeat(" A=b", 128)},
		{"too many fields", around(strings.Repeat("A: b\r\n", 129)), "431"},
	})
}

// A head is whole or it is not: whatever part of it is here, the verdict is the
// same as when all of it comes at once.
func TestEveryPrefixOfAHeadAsksForMore(t *testing.T) {
	raw := "\r\nPOST http://b/p?q HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: x-a, close\r\nContent-Length: 3\r\n\r\n"
	for i := range raw {
		if got := parse(raw[:i]); got != "more" {
			t.Fatalf("%q: %s", raw[:i], got)
		}
	}
	if got, want := parse(raw+"abc"), `POST b /p?q Content-Length=3 (3 bytes) (close) then "abc"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
