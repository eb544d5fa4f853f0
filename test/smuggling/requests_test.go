package smuggling_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/weirmesh/weir/test/edge"
	"github.com/weirmesh/weir/test/smuggling"
)

const (
	good     = "GET /before HTTP/1.1\r\nHost: a\r\n\r\n"
	after    = "GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	sentinel = "GET /sentinel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)

// forwarded is how the edge passes on one of these.
func forwarded(request string) string {
	return strings.Replace(request, "Connection: close\r\n", "", 1)
}

// Every request of the tables, alone, behind another, and byte by byte: the
// client gets the verdict, the upstream exactly what the table says, and whoever
// asks next an answer of their own.
func TestRequests(t *testing.T) {
	families, err := smuggling.Requests()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := startBench(t)
			for _, r := range f.Rows {
				if !t.Run(r.Name, func(t *testing.T) {
					// First from a client that then ends its side, as nobody waits for
					// it: what fails there for good is not tried again with patience.
					for _, as := range []manner{{ends: true}, {}, {behind: true}, {piecemeal: true}} {
						if b.request(t, r, as); t.Failed() {
							return
						}
					}
				}) {
					b = startBench(t) // the other may be in the middle of something
				}
			}
		})
	}
}

// manner is how a row is sent.
type manner struct{ ends, behind, piecemeal bool }

func (m manner) String() string {
	return fmt.Sprintf("behind another: %v, piecemeal: %v, then ends: %v", m.behind, m.piecemeal, m.ends)
}

// bench is an edge and the upstream behind it.
type bench struct {
	*recorder
	edge string
}

func startBench(t testing.TB) *bench {
	t.Helper()
	u := startRecorder(t)
	return &bench{recorder: u, edge: edge.Start(t, edge.Service("s", u.addr), edge.Route("r", "/", "s")).Addr}
}

func (b *bench) request(t *testing.T, r smuggling.Row, as manner) {
	t.Helper()
	how := fmt.Sprintf("RFC %s, %v", r.Section, as)
	sent, verdict, want := r.Sent, r.Verdict, r.Want
	if verdict == "none" {
		verdict = ""
	}
	if as.behind {
		sent, verdict, want = good+sent, strings.TrimSpace("200 "+verdict), forwarded(good)+want
	}
	if !strings.HasSuffix(verdict, "!") && r.Verdict != "none" && r.End == "" {
		sent, verdict, want = sent+after, verdict+" 200!", want+forwarded(after)
	}
	end := r.End
	if as.ends && end == "" {
		end = "close"
	}
	c := dial(t, b.edge)
	send(c, sent, end, as.piecemeal)
	if got := verdicts(c, sent, verdict); got != verdict {
		t.Errorf("%s:\nsent %s\ngot %s, want %s", how, clip(sent), got, verdict)
	}
	c.Close()
	b.askSentinel(t)

	got, faults := b.harvest()
	if len(faults) > 0 {
		t.Errorf("%s:\nsent %s\nthe upstream saw %s", how, clip(sent), faults)
	}
	if want := wanted(t, want+forwarded(sentinel)); !slices.Equal(texts(got), want) {
		t.Errorf("%s:\nsent %s\nthe upstream saw %s\nwant %s", how, clip(sent), clip(fmt.Sprintf("%q", texts(got))), clip(fmt.Sprintf("%q", want)))
	}
}

// clip keeps reports readable.
func clip(s string) string {
	if len(s) > 600 {
		s = s[:300] + " … " + s[len(s)-300:]
	}
	return fmt.Sprintf("%q", s)
}

// verdicts reads answers to the end of the connection, or until they are not
// what is wanted.
func verdicts(c io.Reader, sent, want string) string {
	in := bufio.NewReader(c)
	var all []string
	for {
		if got := strings.Join(all, " "); !strings.HasPrefix(want, got) {
			return got
		}
		if _, err := in.Peek(1); err != nil {
			if !isGone(err) {
				all = append(all, "open")
			}
			return strings.Join(all, " ")
		}
		method := "GET"
		if len(all) == 0 && strings.HasPrefix(sent, "HEAD ") || len(all) == 1 && strings.HasPrefix(sent, good+"HEAD ") {
			method = "HEAD"
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return fmt.Sprintf("%v %v", all, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return fmt.Sprintf("%v %v", all, err)
		}
		switch {
		case resp.StatusCode == 100: // may come or not: the body may be here already
		case resp.Close:
			all = append(all, fmt.Sprintf("%d!", resp.StatusCode))
		default:
			all = append(all, fmt.Sprint(resp.StatusCode))
		}
	}
}

// askSentinel asks, over a connection of its own, what must be answered whatever
// came before, and waits until nothing is on its way.
func (b *bench) askSentinel(t testing.TB) {
	t.Helper()
	c := dial(t, b.edge)
	defer c.Close()
	send(c, sentinel, "", false)
	raw, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(raw), "HTTP/1.1 200 ") || !strings.HasSuffix(string(raw), "\r\n\r\nGET /sentinel") {
		t.Errorf("who asks next is answered %q, %v", raw, err)
	}
	if !t.Failed() {
		waitFor(t, "the edge's other connections end", b.settled)
	}
}

// wanted cuts what the table says is forwarded into messages.
func wanted(t *testing.T, raw string) (all []string) {
	t.Helper()
	for raw != "" {
		m, rest, err := smuggling.Next(raw, "")
		if err != nil || m == nil {
			t.Fatalf("the table wants something forwarded that is no message: %q, %v", raw, err)
		}
		all, raw = append(all, m.String()), rest
	}
	return all
}

// texts is the messages without what the edge adds to each: that is checked here.
func texts(messages []received) (all []string) {
	for _, m := range messages {
		own := 0
		stripped := *m.Message
		stripped.Fields = slices.DeleteFunc(slices.Clone(m.Fields), func(f string) bool {
			name, value, _ := strings.Cut(f, ": ")
			added := false
			switch strings.ToLower(name) { // in the client's case, where it sent one
			case "x-forwarded-for":
				added = value == "127.0.0.1"
			case "x-forwarded-proto":
				added = value == "http"
			case "x-forwarded-host":
				added = value == m.Field("Host")
			case "x-request-id":
				added = len(value) == 32
			}
			if added {
				own++
			}
			return added
		})
		s := stripped.String()
		if own != 4 {
			s += fmt.Sprintf("\nwith %d of the edge's own fields", own)
		}
		all = append(all, s)
	}
	return all
}
