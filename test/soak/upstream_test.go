package soak

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What upstreams are in the mood for.
const (
	well     = "well"
	slow     = "slow"     // a piece at a time
	busy     = "busy"     // 503
	reset    = "reset"    // before or within an answer
	dead     = "dead"     // nobody listens
	hang     = "hang"     // says nothing, until the mood changes
	early    = "early"    // answers before it has read the request, and closes
	garbage  = "garbage"  // speaks no HTTP
	breaking = "breaking" // frames its answers wrongly
)

var moods = []string{well, well, well, slow, busy, reset, dead, hang, early, garbage, breaking}

// upstream is an endpoint whose mood changes.
type upstream struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	mood     string
	change   chan struct{} // closed when the mood changes
	listener net.Listener  // nil while dead
	conns    map[*net.TCPConn]bool
	all      sync.WaitGroup
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{t: t, mood: well, change: make(chan struct{}), conns: map[*net.TCPConn]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.addr = l.Addr().String()
	u.listen(l)
	return u
}

func (u *upstream) listen(l net.Listener) {
	u.listener = l
	u.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns[c.(*net.TCPConn)] = true
			u.mu.Unlock()
			u.all.Go(func() { u.serve(c.(*net.TCPConn)) })
		}
	})
}

// set changes the mood. One that is dead takes its connections with it.
func (u *upstream) set(mood string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.change)
	u.mood, u.change = mood, make(chan struct{})
	switch {
	case mood == dead && u.listener != nil:
		u.listener.Close()
		u.listener = nil
		for c := range u.conns {
			_ = c.SetLinger(0)
			c.Close()
		}
	case mood != dead && u.listener == nil:
		if l, err := net.Listen("tcp", u.addr); err == nil { // else it stays dead until its next mood
			u.listen(l)
		}
	}
}

// alive reports whether it listens and is well.
func (u *upstream) alive() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mood == well && u.listener != nil
}

func (u *upstream) now() (mood string, change chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mood, u.change
}

func (u *upstream) stop() {
	u.set(dead)
	u.all.Wait()
}

func (u *upstream) serve(c *net.TCPConn) {
	defer func() {
		c.Close()
		u.mu.Lock()
		delete(u.conns, c)
		u.mu.Unlock()
	}()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		mood, _ := u.now()
		if r.Header.Get("Upgrade") == "websocket" && (mood == well || mood == slow) {
			u.converse(c, in)
			return
		}
		if mood != early && !u.readBody(r) {
			return
		}
		if !u.answer(c, r, mood) {
			return
		}
	}
}

// readBody checks that every byte of a body is its own request's.
func (u *upstream) readBody(r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if !own(string(body), r.Header.Get("X-Id")) {
		u.t.Errorf("the request of %s came with another's body", r.Header.Get("X-Id"))
	}
	return err == nil
}

// text is what belongs to an id: as many bytes of it as are wanted.
func text(id string, n int) string {
	return strings.Repeat(id+"\n", n/(len(id)+1)+1)[:n]
}

// own: these are the first bytes of what belongs to an id.
func own(got, id string) bool { return got == text(id, len(got)) }

// converse says back what it hears.
func (u *upstream) converse(c *net.TCPConn, in *bufio.Reader) {
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err == nil {
		// Not by splice: Go keeps its pipes until a collection.
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{in})
	}
}

// answer reports whether the connection can be used again.
func (u *upstream) answer(c *net.TCPConn, r *http.Request, mood string) bool {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	body := text(r.Header.Get("X-Id"), n)
	if r.Method == "HEAD" {
		body = ""
	}
	sized := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
	var err error
	switch mood {
	case busy:
		_, err = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
	case reset, dead:
		_, _ = io.WriteString(c, (sized + body)[:rand.IntN(len(sized)+len(body)+1)])
		_ = c.SetLinger(0)
		return false
	case hang:
		_, change := u.now()
		<-change
		return false
	case early:
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return false
	case garbage:
		_, _ = io.WriteString(c, "what?\r\n\r\n"+body)
		return false
	case breaking:
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		if r.Method != "HEAD" && n > 0 {
			fmt.Fprintf(c, "%x\r\n%s\r\nwhat?\r\n", n, body)
		}
		return false
	case slow:
		_, err = io.WriteString(c, sized)
		for err == nil && body != "" {
			piece := min(len(body), 1+len(body)/4)
			time.Sleep(time.Millisecond)
			_, err = io.WriteString(c, body[:piece])
			body = body[piece:]
		}
	default:
		err = u.writeWell(c, r, sized, body)
	}
	return err == nil
}

func (u *upstream) writeWell(c *net.TCPConn, r *http.Request, sized, body string) error {
	if r.URL.Query().Get("as") != "chunked" || r.Method == "HEAD" {
		_, err := io.WriteString(c, sized+body)
		return err
	}
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	for err == nil && body != "" {
		piece := min(len(body), 20_000)
		_, err = fmt.Fprintf(c, "%x\r\n%s\r\n", piece, body[:piece])
		body = body[piece:]
	}
	if err == nil {
		_, err = io.WriteString(c, "0\r\n\r\n")
	}
	return err
}
