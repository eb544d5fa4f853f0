package smuggling_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/edge"
	"github.com/weirmesh/weir/test/smuggling"
)

// Every answer of the tables, in one piece and byte by byte: the client gets it
// as the table says or a 502, and its next request its own answer, over the
// upstream's connection or a new one.
func TestAnswers(t *testing.T) {
	families, err := smuggling.Answers()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := startBench(t)
			ask := f.Ask
			if ask == "" {
				ask = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
			}
			for _, r := range f.Rows {
				if !t.Run(r.Name, func(t *testing.T) {
					// First from an upstream that then ends its side; see TestRequests.
					for _, as := range []manner{{ends: true}, {}, {piecemeal: true}} {
						if b.answerWith(t, ask, r, as); t.Failed() {
							return
						}
					}
				}) {
					b = startBench(t)
				}
			}
		})
	}
}

func (b *bench) answerWith(t *testing.T, ask string, r smuggling.Row, as manner) {
	t.Helper()
	how := fmt.Sprintf("RFC %s, %v", r.Section, as)
	end := r.End
	if as.ends && end == "" {
		end = "close"
	}
	b.mu.Lock()
	b.answer, b.piecemeal = func(*smuggling.Message) (string, string) { return r.Sent, end }, as.piecemeal
	b.mu.Unlock()

	c := dial(t, b.edge)
	send(c, ask+after, "", false)
	raw, err := io.ReadAll(c)
	if err != nil && !isGone(err) {
		t.Errorf("%s: the connection stays open", how)
	}
	c.Close()
	got, want := heard(string(raw), ask), expected(t, r, ask)
	if got != want && !(r.End == "reset" && got == failed) {
		t.Errorf("%s:\nanswered %s\nthe client got %s\nwant %s", how, clip(r.Sent), clip(got), clip(want))
	}
	b.askSentinel(t)
	messages, faults := b.harvest()
	if len(faults) > 0 {
		t.Errorf("%s: the upstream saw %s", how, faults)
	}
	if t.Failed() || end != r.End { // who ends its side decides that
		return
	}
	if kept := usedAgain(messages); kept != strings.HasSuffix(r.Verdict, " kept") {
		t.Errorf("%s:\nanswered %s\nthe connection is used again: %v, want %s", how, clip(r.Sent), kept, r.Verdict)
	}
}

// usedAgain: what follows the row came over the same connection.
func usedAgain(messages []received) bool {
	for i, m := range messages[:len(messages)-1] {
		if next := messages[i+1]; m.Target() == "/x" && next.Target() != "/x" {
			return m.over == next.over
		}
	}
	return false
}

const (
	next = "\n\n200 GET /after"
	// failed is what a 502 becomes. A reset may overtake what was sent before it,
	// so that an answer that was to be cut never begins.
	failed = "502 a problem" + next
)

// expected is what the client gets for a row and the request behind it.
func expected(t *testing.T, r smuggling.Row, ask string) string {
	t.Helper()
	status, how, _ := strings.Cut(r.Verdict, " ")
	switch {
	case status == "502":
		return failed
	case how == "cut":
		return status + " cut"
	}
	m, rest, err := smuggling.Next(r.Want, method(ask))
	if m == nil || rest != "" {
		t.Fatalf("the table wants what is no answer: %q, %v", r.Want, err)
	}
	return m.String() + next
}

func method(request string) string { return strings.Split(request, " ")[0] }

// heard is what the client got, in the words of expected.
func heard(raw, ask string) string {
	first, rest, err := final(raw, method(ask))
	if first == nil {
		if err == nil && strings.HasPrefix(raw, "HTTP/1.1 200 OK\r\n") {
			return "200 cut"
		}
		return fmt.Sprintf("%q, %v", raw, err)
	}
	said := first.String()
	if first.Field("Content-Type") == "application/problem+json" {
		said = strings.Split(first.Line, " ")[1] + " a problem"
	}
	second, left, err := final(rest, "GET")
	if second == nil || left != "" {
		return fmt.Sprintf("%s\n\n%q, %v", said, rest, err)
	}
	return said + "\n\n" + strings.Split(second.Line, " ")[1] + " " + second.Body
}

// final is the first answer that is not an interim one, without the fields that
// are the edge's own.
func final(raw, method string) (m *smuggling.Message, rest string, err error) {
	for {
		m, rest, err = smuggling.Next(raw, method)
		if m == nil || !strings.HasPrefix(m.Line, "HTTP/1.1 1") || strings.HasPrefix(m.Line, "HTTP/1.1 101") {
			break
		}
		raw = rest
	}
	if m == nil {
		return nil, rest, err
	}
	var fields []string
	for _, f := range m.Fields {
		if strings.HasPrefix(f, "X-Request-Id: ") || strings.HasPrefix(f, "Date: ") || f == "Connection: close" {
			continue
		}
		fields = append(fields, f)
	}
	m.Fields = fields
	return m, rest, nil
}

// An interim answer comes to the client as it was sent, before the final one; a
// request that one was relayed for is not sent again.
func TestInterimAnswersAreRelayed(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
	u := startRecorder(t)
	route := edge.Route("r", "/", "s")
	route.Spec.Rules[0].Retry = &weirv1.RouteRetry{Attempts: 3, Codes: []uint32{503}}
	b := &bench{recorder: u, edge: edge.Start(t, edge.Service("s", u.addr), route).Addr}
	for _, c := range []struct{ sent, end, status string }{
		{hints + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", "200"},
		{hints, "close", "502"},
		{hints + "HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", "", "503"},
	} {
		b.ask(t, "/before", nil) // so that the connection is one that was kept
		got := b.ask(t, "/x", func(*smuggling.Message) (string, string) { return c.sent, c.end })
		interim, rest, err := smuggling.Next(got, "GET")
		if interim == nil || interim.Line != "HTTP/1.1 103 Early Hints" || interim.Field("Link") != "</a.css>" {
			t.Fatalf("the client got %q first, %v", got, err)
		}
		if last, _, err := smuggling.Next(rest, "GET"); last == nil || !strings.HasPrefix(last.Line, "HTTP/1.1 "+c.status) {
			t.Errorf("then %q, %v; want %s", rest, err, c.status)
		}
		messages, _ := b.harvest()
		if len(messages) != 2 {
			t.Errorf("the upstream was asked %d times, for two requests", len(messages))
		}
	}
}

// ask makes one request over a connection of its own.
func (b *bench) ask(t *testing.T, target string, answer func(*smuggling.Message) (string, string)) string {
	t.Helper()
	b.mu.Lock()
	b.answer = answer
	b.mu.Unlock()
	c := dial(t, b.edge)
	defer c.Close()
	send(c, "GET "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", false)
	raw, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}
