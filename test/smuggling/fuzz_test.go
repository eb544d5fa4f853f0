package smuggling_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/weirmesh/weir/test/smuggling"
)

// Whatever a client sends, what the edge forwards is well-formed by the grammar,
// is what net/http reads in the same bytes, and leaves no one's connection in
// the middle of something.
func FuzzRequests(f *testing.F) {
	families, err := smuggling.Requests()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range families {
		for _, r := range family.Rows {
			f.Add([]byte(r.Sent))
		}
	}
	b := startBench(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := dial(t, b.edge)
		send(c, string(raw), "close", false)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
		b.askSentinel(t)
		messages, faults := b.harvest()
		if len(faults) > 0 {
			t.Errorf("of %q the upstream saw %s", raw, faults)
		}
		theirs := bufio.NewReader(strings.NewReader(strings.TrimLeft(string(raw), "\r\n")))
		for _, m := range messages[:len(messages)-1] { // the last is the sentinel
			if !isNext(theirs, m.Message) {
				t.Errorf("of %q the upstream saw %q, which net/http does not read there", raw, m)
			}
		}
	})
}

// isNext finds a message among those that net/http reads. The edge answers some
// of them itself.
func isNext(in *bufio.Reader, m *smuggling.Message) bool {
	for {
		for { // the edge reads over empty lines between requests, too
			if b, err := in.Peek(2); err != nil || string(b) != "\r\n" {
				break
			}
			_, _ = in.Discard(2)
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil && !strings.Contains(err.Error(), "trailer") {
			return false
		}
		if r.Method == m.Method() && string(body) == m.Body && r.Host == m.Field("Host") {
			return true
		}
	}
}

// Whatever an upstream answers, the client reads a well-formed answer or the
// beginning of one, and the next client its own.
func FuzzAnswers(f *testing.F) {
	families, err := smuggling.Answers()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range families {
		for _, r := range family.Rows {
			f.Add([]byte(r.Sent))
		}
	}
	b := startBench(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		b.mu.Lock()
		b.answer = func(*smuggling.Message) (string, string) { return string(raw), "close" }
		b.mu.Unlock()
		c := dial(t, b.edge)
		send(c, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"+after, "", false)
		got, _ := io.ReadAll(c)
		c.Close()
		first, rest, err := final(string(got), "GET")
		switch {
		case err != nil:
			t.Errorf("%q came to the client as %q: %v", raw, got, err)
		case first == nil: // it breaks off, and nothing comes behind it
		default:
			if second, left, err := final(rest, "GET"); second == nil || left != "" || second.Body != "GET /after" {
				t.Errorf("%q came to the client as %q: what follows is no answer to the next request: %v", raw, got, err)
			}
		}
		b.askSentinel(t)
		if _, faults := b.harvest(); len(faults) > 0 {
			t.Errorf("the upstream saw %s", faults)
		}
	})
}
