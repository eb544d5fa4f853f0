package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What clients may send, and what comes of it: the statuses in order ("!": the
// last one, the connection is closed), and what the service gets to see. Nothing
// may be seen there that was not counted here as a request.
func TestMessages(t *testing.T) {
	const host = "Host: a\r\n"
	get := func(fields string) string { return "GET /x HTTP/1.1\r\n" + host + fields + "\r\n" }
	post := func(fields, body string) string { return "POST /x HTTP/1.1\r\n" + host + fields + "\r\n" + body }
	const chunked = "Transfer-Encoding: chunked\r\n"
	smuggled := "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
	sized := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }

	for _, c := range []struct {
		name, raw, want string
		seen            []string
	}{
		// What is well-formed.
		{"a request", get(""), "200", []string{"GET /x"}},
		{"two in one packet", get("") + "GET /y HTTP/1.1\r\n" + host + "\r\n", "200 200", []string{"GET /x", "GET /y"}},
		{"many in one packet", strings.Repeat(get(""), 20), strings.TrimSpace(strings.Repeat("200 ", 20)), repeat("GET /x", 20)},
		{"two with bodies", post(sized("abc"), "abc") + post(chunked, "3\r\ndef\r\n0\r\n\r\n") + get(""), "200 200 200", []string{"POST /x abc", "POST /x def", "GET /x"}},
		{"empty lines before, between and behind", "\r\n\r\n" + post(sized("abc"), "abc") + "\r\n" + get("") + "\r\n", "200 200", []string{"POST /x abc", "GET /x"}},
		{"the last one says so", get("Connection: close\r\n") + get(""), "200!", []string{"GET /x"}},
		{"a GET with a body", "GET /x HTTP/1.1\r\n" + host + sized("abc") + "\r\nabc" + get(""), "200 200", []string{"GET /x abc", "GET /x"}},
		{"a body that looks like a request", post(sized(smuggled), smuggled), "200", []string{"POST /x " + strings.TrimSpace(smuggled)}},
		{"chunks that look like a request", post(chunked, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)), "200", []string{"POST /x " + strings.TrimSpace(smuggled)}},
		{"an empty body in chunks", post(chunked, "0\r\n\r\n") + get(""), "200 200", []string{"POST /x", "GET /x"}},
		{"HTTP/1.0", "GET /x HTTP/1.0\r\n\r\n" + get(""), "200!", []string{"GET /x"}},
		{"HTTP/1.0 that keeps the connection", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get(""), "200 200", []string{"GET /x", "GET /x"}},
		{"an absolute target", "GET http://b/x?y HTTP/1.1\r\n" + host + "\r\n", "200", []string{"GET /x?y"}},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", "200", []string{"OPTIONS *"}},
		{"a path that climbs is answered, the connection goes on", "GET /../x HTTP/1.1\r\n" + host + "\r\n" + get(""), "400 200", []string{"GET /x"}},
		{"a path that climbs in disguise", "GET /%2e%2E/x HTTP/1.1\r\n" + host + "\r\n", "400", nil},
		{"a path is brought into its normal form", "GET /a/%2e%2e/%78;%2f%c3%a9/.?%78 HTTP/1.1\r\n" + host + "\r\n", "200", []string{"GET /x;%2f%c3%a9/?%78"}},

		// What is good, and then bad.
		{"good, then bad", get("") + "BAD\r\n\r\n" + get(""), "200 400!", []string{"GET /x"}},
		{"good, then half of one", get("") + "GET /y HTTP/1.1\r\nHo", "200", []string{"GET /x"}},
		{"good, then TLS", get("") + "\x16\x03\x01\x02\x00", "200 400!", []string{"GET /x"}},

		// Lines.
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400!", nil},
		{"HTTP/0.9", "GET /x\r\n\r\n", "400!", nil},
		{"HTTP/1.2", "GET /x HTTP/1.2\r\n" + host + "\r\n", "505!", nil},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\n" + host + "\r\n", "501!", nil},
		{"CONNECT in origin form", "CONNECT /x HTTP/1.1\r\n" + host + "\r\n", "400!", nil},
		{"a space in the target", "GET /x /y HTTP/1.1\r\n" + host + "\r\n", "400!", nil},
		{"NUL in the target", "GET /x\x00 HTTP/1.1\r\n" + host + "\r\n", "400!", nil},
		{"a bad percent-encoding", "GET /%2 HTTP/1.1\r\n" + host + "\r\n", "400!", nil},
		{"bare LFs", "GET /x HTTP/1.1\nHost: a\n\n", "400!", nil},
		{"one bare LF", "GET /x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400!", nil},
		{"a bare CR", get("X: a\rTransfer-Encoding: chunked\r\n"), "400!", nil},
		{"NUL in a field", get("X: a\x00\r\n"), "400!", nil},
		{"a folded line", get("X: a\r\n b\r\n"), "400!", nil},
		{"a space before a colon", get("X : a\r\n"), "400!", nil},
		{"a field without a name", get(": a\r\n"), "400!", nil},
		{"an expectation", get("Expect: a miracle\r\n"), "417!", nil},

		// Hosts.
		{"no Host", "GET /x HTTP/1.1\r\n\r\n", "400!", nil},
		{"two Hosts", get(host), "400!", nil},
		{"a Host that is none", "GET /x HTTP/1.1\r\nHost: a/admin\r\n\r\n", "400!", nil},
		{"a target with user information", "GET http://u@b/ HTTP/1.1\r\n" + host + "\r\n", "400!", nil},

		// Lengths, with a second request where another reading would find it.
		{"two lengths", post("Content-Length: 0\r\n"+sized(smuggled), smuggled), "400!", nil},
		{"two equal lengths", post(sized(smuggled)+sized(smuggled), smuggled), "400!", nil},
		{"a list of lengths", post("Content-Length: 0, 0\r\n", smuggled), "400!", nil},
		{"a signed length", post("Content-Length: +0\r\n", smuggled), "400!", nil},
		{"a length that wraps around", post("Content-Length: 18446744073709551616\r\n", smuggled), "400!", nil},
		{"a length and chunks", post(sized("0\r\n\r\n"+smuggled)+chunked, "0\r\n\r\n"+smuggled), "400!", nil},
		{"chunks and a length", post(chunked+"Content-Length: 5\r\n", "0\r\n\r\n"+smuggled), "400!", nil},
		{"chunked twice", post(chunked+chunked, "0\r\n\r\n"+smuggled), "400!", nil},
		{"chunked, chunked", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"+smuggled), "400!", nil},
		{"xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"+smuggled), "400!", nil},
		{"chunked;q=1", post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"+smuggled), "400!", nil},
		{"a vertical tab and chunked", post("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"+smuggled), "400!", nil},
		{"identity", post("Transfer-Encoding: identity\r\n"+sized("abc"), "abc"), "400!", nil},
		{"gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"+smuggled), "501!", nil},
		{"chunked in HTTP/1.0", "POST /x HTTP/1.0\r\n" + chunked + "\r\n0\r\n\r\n" + smuggled, "400!", nil},
		{"a length that Connection names counts still", post("Connection: content-length\r\n"+sized("abc"), "abc"+get("")), "200 200", []string{"POST /x abc", "GET /x"}},

		// Chunks.
		{"a bad chunk size", post(chunked, "x\r\n"+smuggled), "400!", nil},
		{"a negative chunk size", post(chunked, "-1\r\n"+smuggled), "400!", nil},
		{"a chunk size that wraps around", post(chunked, "10000000000000000\r\n"+smuggled), "400!", nil},
		{"a chunk size with a bare LF", post(chunked, "3\nabc\r\n0\r\n\r\n"), "400!", nil},
		{"an LF in a chunk extension", post(chunked, "3;a\nabc\r\n0\r\n\r\n"+smuggled), "400!", nil},
		{"a chunk longer than its size", post(chunked, "3\r\nabcd\r\n0\r\n\r\n"), "400!", nil},
		{"a second chunk that is bad", post(chunked, "3\r\nabc\r\nx\r\n"+smuggled), "400!", nil},
		{"a trailer that is none", post(chunked, "3\r\nabc\r\n0\r\nGET /admin HTTP/1.1\r\n\r\n"), "400!", nil},
		{"a body cut short", post("Content-Length: 10\r\n", "abc"), "400!", nil},
		{"chunks cut short", post(chunked, "3\r\nab"), "400!", nil},
		{"chunks without their end", post(chunked, "3\r\nabc\r\n"), "400!", nil},

		// Sizes.
		{"a large head", get("X: " + strings.Repeat("x", 60<<10) + "\r\n"), "200", []string{"GET /x"}},
		{"a larger one", get("X: " + strings.Repeat("x", 64<<10) + "\r\n"), "431!", nil},
		{"one without end", "GET /x HTTP/1.1\r\n" + host + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 80), "431!", nil},
		{"a request line without end", "GET /" + strings.Repeat("x", 80<<10), "414!", nil},
		{"too many fields", get(strings.Repeat("X: y\r\n", 1000)), "431!", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := startOrigin(t, nil)
			o.expectOnly(t, c.seen...)
			e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
			client := dial(t, e.addr)
			client.send(c.raw)
			client.CloseWrite()
			if got := client.verdicts(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A body that nobody read stands before the next request: a small one that is
// here is skipped, else the connection ends.
func TestUnreadBody(t *testing.T) {
	const line = "POST /nowhere HTTP/1.1\r\nHost: a\r\n"
	const next = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
	big := strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name, raw, want string
		seen            []string
	}{
		{"small", line + "Content-Length: 3\r\n\r\nabc" + next, "404 200", []string{"GET /x"}},
		{"small, chunked", line + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + next, "404 200", []string{"GET /x"}},
		{"many small chunks", line + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 500) + "0\r\n\r\n" + next, "404 200", []string{"GET /x"}},
		{"large", line + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(big)) + big + next, "404!", nil},
		{"large, chunked", line + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(big), big) + next, "404!", nil},
		{"not here", line + "Content-Length: 3\r\n\r\na", "404!", nil},
		{"not even asked for", line + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n", "404!", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOrigin(t, nil)
			o.expect(t, c.seen...)
			e := startEdge(t, service("s", o.addr), route("r", "/x", "s"))
			client := dial(t, e.addr)
			client.send(c.raw)
			if client.CloseWrite(); client.verdicts() != c.want {
				t.Errorf("want %s", c.want)
			}
		})
	}
}

func repeat(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

// A request is the same however it is cut.
func TestByteByByte(t *testing.T) {
	o := startOrigin(t, nil)
	o.expect(t, "GET /a", "POST /b hello", "POST /c hello", "GET /d")
	e := startEdge(t, service("s", o.addr), route("r", "/", "s"))
	c := dial(t, e.addr)
	c.SetNoDelay(true)
	raw := "GET /a HTTP/1.1\r\nHost: a\r\n\r\n" +
		"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n" +
		"\r\nGET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for _, b := range []byte(raw) {
		c.sendf("%c", b)
		time.Sleep(50 * time.Microsecond) // so that it travels alone, mostly
	}
	if got, want := c.verdicts(), "200 200 200 200!"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSlowHead(t *testing.T) {
	for _, c := range []struct {
		name, raw, want string
	}{
		{"half a head", "GET / HTTP/1.1\r\nHos", "408!"},
		{"no head at all", "", ""},
		{"empty lines are no head", "\r\n\r\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := startOrigin(t, nil)
			o.expect(t)
			e := startEdgeWith(t, impatient, service("s", o.addr), route("r", "/", "s"))
			client := dial(t, e.addr)
			client.send(c.raw)
			if got := client.verdicts(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSlowBody(t *testing.T) {
	o := startOrigin(t, nil)
	e := startEdgeWith(t, impatient, service("s", o.addr), route("r", "/", "s"))
	client := dial(t, e.addr)
	client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
	if got, want := client.verdicts(), "408!"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
