package http1_test

import (
	"strings"
	"testing"
)

func TestStatusLine(t *testing.T) {
	checkVerdicts(t, func(line string) string { return parseAnswer(line + "\r\n\r\n") }, []verdict{
		{"a status and a reason", "HTTP/1.1 200 OK", "200"},
		{"a reason of several words", "HTTP/1.1 404 Not Found", "404"},
		{"no reason", "HTTP/1.1 200 ", "200"},
		{"not even the space before it", "HTTP/1.1 200", "200"},
		{"a reason beyond ASCII", "HTTP/1.1 200 \xc3\xa9", "200"},
		{"a status nobody knows", "HTTP/1.1 999 x", "999"},
		{"an interim answer", "HTTP/1.1 103 Early Hints", "103"},
		{"HTTP/1.0", "HTTP/1.0 200 OK", "200 (close)"},
		{"a status below 100", "HTTP/1.1 099 x", "refused"},
		{"a status of two digits", "HTTP/1.1 20 OK", "refused"},
		{"a status of four digits", "HTTP/1.1 2000 OK", "refused"},
		{"a signed status", "HTTP/1.1 +20 OK", "refused"},
		{"two spaces", "HTTP/1.1  200 OK", "refused"},
		{"another version", "HTTP/2.0 200 OK", "refused"},
		{"no version", "ICY 200 OK", "refused"},
		{"NUL in the reason", "HTTP/1.1 200 O\x00K", "refused"},
		{"a bare CR in the reason", "HTTP/1.1 200 OK\r", "refused"},
		{"a request", "GET / HTTP/1.1", "refused"},
		{"an empty line before it", "\r\nHTTP/1.1 200 OK", "refused"},
	})
}

func TestResponseFraming(t *testing.T) {
	checkVerdicts(t, func(fields string) string { return parseAnswer("HTTP/1.1 200 OK\r\n" + fields + "\r\n") }, []verdict{
		{"by its length", "Content-Length: 5\r\n", "200 Content-Length=5 (5 bytes)"},
		{"by chunks", "Transfer-Encoding: chunked\r\n", "200 (chunked)"},
		{"to the end of the connection", "", "200"},
		{"two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "refused"},
		{"the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", "refused"},
		{"a list of lengths", "Content-Length: 5, 5\r\n", "refused"},
		{"a negative length", "Content-Length: -5\r\n", "refused"},
		{"chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "refused"},
		{"another coding", "Transfer-Encoding: gzip, chunked\r\n", "refused"},
		{"close", "Connection: close\r\n", "200 (close)"},
		{"fields of this hop", "Connection: x-a\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-B: 2\r\n", "200 X-B=2"},
		{"what is of this hop in a request alone", "Host: a\r\nExpect: b\r\n", "200 Host=a Expect=b"},
		{"a folded line", "A: b\r\n c\r\n", "refused"},
		{"a space before the colon", "A : b\r\n", "refused"},
		{"a bare LF", "A: b\nC: d\r\n", "refused"},
		{"too large", "A: " + strings.Repeat("x", 64<<10) + "\r\n", "refused"},
	})
	checkVerdicts(t, parseAnswer, []verdict{
		{"HTTP/1.0 may keep the connection", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", "200 Content-Length=0 (0 bytes)"},
		{"HTTP/1.0 has no chunks", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "refused"},
		{"204 has no body; one that says so is not trusted again", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", `204 Content-Length=5 (5 bytes) (close) then "hello"`},
		{"304 tells the length of what was not sent", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "304 Content-Length=5 (5 bytes)"},
	})
}

func TestEveryPrefixOfAnAnswerAsksForMore(t *testing.T) {
	raw := "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
	for i := range raw {
		if got := parseAnswer(raw[:i]); got != "more" {
			t.Fatalf("%q: %s", raw[:i], got)
		}
	}
}
