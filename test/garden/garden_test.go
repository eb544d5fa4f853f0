package garden

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/edge"
	"github.com/weirmesh/weir/test/smuggling"
)

// witness is the service behind a server: it says what it saw.
func witness(t *testing.T) (origin string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin" {
			t.Error("a request was smuggled to the witness")
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the server broke the request off
		}
		w.Header().Set("X-Saw", saw(r.Method, r.RequestURI, string(body)))
		switch r.URL.Query().Get("as") {
		case "204":
			w.WriteHeader(204)
		case "chunked":
			fmt.Fprint(w, "seen")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, " in chunks")
		case "large":
			_, _ = io.CopyN(w, zeros{}, 300_000)
		case "close":
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "seen, and gone")
		default:
			fmt.Fprint(w, "seen")
		}
	}))
	s.Config.MaxHeaderBytes = 256 << 10
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func saw(method, target, body string) string {
	return fmt.Sprintf("%s %s %x", method, target, sha256.Sum256([]byte(body)))
}

// Every server behind an edge.
func TestGarden(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			address := plant(t, s, witness(t))
			addr := edge.Start(t, edge.Service("s", address), edge.Route("r", "/", "s")).Addr
			t.Run("frames as the edge does", func(t *testing.T) { testTables(t, addr) })
			t.Run("answers mixed traffic one for one", func(t *testing.T) { testTraffic(t, addr) })
		})
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(edge.Patience))
	return c
}

// testTables: whatever the edge passes on of the tables' requests, the server
// takes for the same requests, or refuses.
func testTables(t *testing.T, addr string) {
	families, err := smuggling.Requests()
	if err != nil {
		t.Fatal(err)
	}
	agreed, refused := 0, 0
	for _, f := range families {
		for _, r := range f.Rows {
			if r.Want == "" || strings.Contains(r.Want, "\r\nUpgrade: ") {
				continue
			}
			a, n := frames(t, addr, r)
			agreed, refused = agreed+a, refused+n
		}
	}
	t.Logf("%d requests are read as they were meant, %d refused", agreed, refused)
	if refused > agreed/10 {
		t.Error("it refuses so much that little is shown")
	}
}

const last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// frames sends a row and, over a connection of its own, one more request. It
// counts the answers that say what was meant, and the refusals.
func frames(t *testing.T, addr string, r smuggling.Row) (agreed, refused int) {
	t.Helper()
	sent := []string{r.Sent, last}
	if !strings.Contains(r.Verdict, "!") {
		sent = []string{r.Sent + last, last}
	}
	want := []string{r.Want + strings.TrimPrefix(sent[0], r.Sent), last}
	for i := range sent {
		c := dial(t, addr)
		_, _ = io.WriteString(c, sent[i])
		in := bufio.NewReader(c)
		for rest := want[i]; rest != ""; {
			m, left, err := smuggling.Next(rest, "")
			if m == nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			rest = left
			resp, err := answer(in, m.Method())
			if err != nil {
				t.Errorf("%s: %.200q is not answered: %v", r.Name, m, err)
				break
			}
			if got := resp.Header.Get("X-Saw"); resp.StatusCode < 400 && got != "" {
				agreed++
				sameRequest(t, r, m, got)
			} else {
				refused++
			}
		}
		c.Close()
	}
	return agreed, refused
}

// answer reads the next final answer whole; one that the edge gives by itself to
// what it would not pass on is none of the server's.
func answer(in *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 && !strings.Contains(string(body), ":bad_path") {
			return resp, nil
		}
	}
}

// sameRequest compares what was seen. A target that has several forms may have
// been given another of them.
func sameRequest(t *testing.T, r smuggling.Row, m *smuggling.Message, got string) {
	t.Helper()
	want := saw(m.Method(), m.Target(), m.Body)
	if m.Target() != "/x" && m.Target() != "/y" && m.Target() != "/z" && m.Target() != "/last" {
		fields := strings.Fields(got)
		got = saw(m.Method(), fields[len(fields)-2], "")
		got = got[:strings.LastIndex(got, " ")+1] + fields[len(fields)-1]
		want = saw(m.Method(), fields[len(fields)-2], m.Body)
	}
	if got != want {
		t.Errorf("%s (RFC %s): the server saw %q, the edge meant %q", r.Name, r.Section, got, want)
	}
}

// testTraffic: many clients, pipelined requests, bodies of each kind; one answer
// for each, and each its own.
func testTraffic(t *testing.T, addr string) {
	var all sync.WaitGroup
	for client := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(client), 11))
			for burst := range 15 {
				if !sendBurst(t, addr, r, fmt.Sprintf("%d-%d", client, burst)) {
					return
				}
			}
		})
	}
	all.Wait()
}

type asked struct{ method, target, body string }

// sendBurst pipelines some requests and compares their answers.
func sendBurst(t *testing.T, addr string, r *rand.Rand, id string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(edge.Patience))
	var raw strings.Builder
	var all []asked
	for i := range 1 + r.IntN(6) {
		a := asked{method: pick(r, "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"), target: fmt.Sprintf("/%s-%d", id, i)}
		a.target += "?as=" + pick(r, "sized", "chunked", "large", "204", "close")
		if r.IntN(3) > 0 && a.method != "HEAD" {
			a.body = strings.Repeat("GET /admin HTTP/1.1\r\nHost: a\r\n\r\n", r.IntN(1<<r.IntN(12)))
		}
		all = append(all, a)
		writeRequest(&raw, r, a)
	}
	sent := make(chan struct{})
	go func() { defer close(sent); _, _ = io.WriteString(c, raw.String()) }()
	defer func() { c.Close(); <-sent }()
	in := bufio.NewReader(c)
	for i, a := range all {
		resp, err := answer(in, a.method)
		if err != nil {
			t.Errorf("%s %s is not answered: %v", a.method, a.target, err)
			return false
		}
		got := resp.Header.Get("X-Saw")
		if want := saw(a.method, a.target, a.body); got != want {
			t.Errorf("answer %d, status %d, is to %q, want %q", i, resp.StatusCode, got, want)
			return false
		}
	}
	return true
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// writeRequest frames the body by a length or in chunks of any size.
func writeRequest(w io.Writer, r *rand.Rand, a asked) {
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\nHost: a\r\n", a.method, a.target)
	if r.IntN(2) == 0 {
		if a.body != "" || r.IntN(2) == 0 {
			fmt.Fprintf(w, "Content-Length: %d\r\n", len(a.body))
		}
		fmt.Fprintf(w, "\r\n%s", a.body)
		return
	}
	fmt.Fprint(w, "Transfer-Encoding: chunked\r\n\r\n")
	for body := a.body; body != ""; {
		n := min(len(body), 1+r.IntN(1<<(4+r.IntN(12))))
		fmt.Fprintf(w, "%x%s\r\n%s\r\n", n, pick(r, "", "", ";a=b", `;a="c;d"`), body[:n])
		body = body[n:]
	}
	fmt.Fprintf(w, "0\r\n%s\r\n", pick(r, "", "", "X-Trailer: t\r\n"))
}
