package smuggling_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/weirmesh/weir/test/smuggling"
)

// recorder is an upstream that writes down what it is sent, and accepts of HTTP
// what the grammar says and nothing else.
type recorder struct {
	addr string

	mu        sync.Mutex
	answer    func(m *smuggling.Message) (raw, end string) // nil: text
	piecemeal bool
	messages  []received
	faults    []string
	links     map[*link]bool
}

// received is a message that came whole.
type received struct {
	*smuggling.Message
	over *link
}

// link is one connection of the edge.
type link struct {
	*net.TCPConn
	pending string // that is no whole message yet
	ended   bool
}

// text answers with what was asked.
func text(m *smuggling.Message) string {
	body := m.Method() + " " + m.Target()
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if m.Method() == "HEAD" {
		return head
	}
	return head + body
}

func startRecorder(t testing.TB) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &recorder{addr: l.Addr().String(), links: map[*link]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			k := &link{TCPConn: c.(*net.TCPConn)}
			u.mu.Lock()
			u.links[k] = true
			u.mu.Unlock()
			all.Go(func() { u.serve(k) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() }) // the edge, which was started later, has left
	return u
}

func (u *recorder) serve(k *link) {
	defer k.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := k.Read(buf)
		if !u.take(k, string(buf[:n]), err != nil) {
			return
		}
	}
}

// take notes what came, answers what is whole, and reports whether more may come.
func (u *recorder) take(k *link, more string, ended bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	k.pending += more
	for k.pending != "" {
		m, rest, err := smuggling.Next(k.pending, "")
		if err != nil {
			u.faults = append(u.faults, err.Error())
			ended = true
		}
		if m == nil {
			break
		}
		k.pending = rest
		u.messages = append(u.messages, received{m, k})
		raw, end := text(m), ""
		if u.answer != nil && m.Target() == "/x" {
			raw, end = u.answer(m)
		}
		piecemeal := u.piecemeal && m.Target() == "/x"
		u.mu.Unlock()
		send(k.TCPConn, raw, end, piecemeal)
		u.mu.Lock()
	}
	k.ended = k.ended || ended
	return !ended
}

// settled: all of the edge's connections have ended but the one that the sentinel
// came over, so that nothing is on its way. What was sent in vain over one that
// had ended may be noted after the sentinel.
func (u *recorder) settled() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	var last *link
	for _, m := range u.messages {
		if m.Target() == "/sentinel" {
			last = m.over
		}
	}
	for k := range u.links {
		if !k.ended && k != last {
			return false
		}
	}
	return true
}

// harvest returns what was seen since it was last called.
func (u *recorder) harvest() (messages []received, faults []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	messages, faults = u.messages, u.faults
	for k := range u.links {
		if !k.ended {
			continue
		}
		if strings.Contains(k.pending, "/admin") && !strings.HasPrefix(k.pending, "POST /x ") {
			faults = append(faults, fmt.Sprintf("a connection ends in %q", k.pending))
		}
		delete(u.links, k)
	}
	u.messages, u.faults = nil, nil
	return messages, faults
}
