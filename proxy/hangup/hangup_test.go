//go:build linux

package hangup

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is a Peer that passes on what it hears.
type told chan bool

func (c told) HungUp(broken bool) { c <- broken }

// next is what a peer hears next.
func (c told) next(t *testing.T) bool {
	t.Helper()
	select {
	case broken := <-c:
		return broken
	case <-time.After(2 * time.Minute):
		t.Fatal("nothing is heard")
		return false
	}
}

func pair(t *testing.T) (client, server *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func start(t *testing.T) *Watcher {
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestPeersThatLeave(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(*net.TCPConn)
		want  []bool // what is heard, one after the other
	}{
		"half":           {func(c *net.TCPConn) { c.CloseWrite() }, []bool{false}},
		"wholly":         {func(c *net.TCPConn) { c.Close() }, []bool{false}},
		"with a reset":   {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, []bool{true}},
		"by and by":      {func(c *net.TCPConn) { c.CloseWrite(); time.Sleep(20 * time.Millisecond); c.SetLinger(0); c.Close() }, []bool{false, true}},
		"behind a word":  {func(c *net.TCPConn) { io.WriteString(c, "next"); c.CloseWrite() }, []bool{false}},
		"behind a crowd": {func(c *net.TCPConn) { c.Write(make([]byte, 64<<10)); c.CloseWrite() }, []bool{false}},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", before it is watched"}[late], func(t *testing.T) {
				w, heard := start(t), make(told, 8)
				client, server := pair(t)
				if late {
					c.leave(client)
					time.Sleep(50 * time.Millisecond) // so that most runs see it late; either way it is heard
				}
				if !w.Watch(7<<32|9, server, heard) {
					t.Fatal("it cannot be watched")
				}
				if !late {
					c.leave(client)
				}
				last := false
				for i := 0; i < len(c.want) && last != c.want[len(c.want)-1] || i == 0; i++ {
					last = heard.next(t)
				}
				if want := c.want[len(c.want)-1]; last != want {
					t.Errorf("heard of broken %v, want %v", last, want)
				}
			})
		}
	}
}

// Where both sides have said all, the connection did not break.
func TestBothSidesClose(t *testing.T) {
	w, heard := start(t), make(told, 8)
	client, server := pair(t)
	w.Watch(1, server, heard)
	server.CloseWrite()
	client.CloseWrite()
	for said := heard.next(t); ; said = <-heard {
		if said {
			t.Error("it is said to be broken")
		}
		if len(heard) == 0 {
			return
		}
	}
}

// What the peer says is no news, and stays where it is.
func TestNothingIsTaken(t *testing.T) {
	w, heard := start(t), make(told, 8)
	client, server := pair(t)
	w.Watch(1, server, heard)
	io.WriteString(client, "next")
	client.CloseWrite()
	heard.next(t)
	if said, err := io.ReadAll(server); string(said) != "next" || err != nil {
		t.Errorf("read %q, %v", said, err)
	}
	if len(heard) > 0 {
		t.Error("it is told of more than the end")
	}
}

// A connection that was closed here is told of to nobody, nor is one that has its
// descriptor now.
func TestClosedConnectionsAreForgotten(t *testing.T) {
	w, old := start(t), make(told, 8)
	for id := range uint64(100) {
		client, server := pair(t)
		w.Watch(id, server, old)
		server.Close()
		w.Forget(id)
		client.Close()
	}
	client, server := pair(t)
	heard := make(told, 8)
	w.Watch(1000, server, heard)
	client.Close()
	heard.next(t)
	if len(old) > 0 {
		t.Errorf("%d that were closed are told", len(old))
	}
	if _, closed := pair(t); closed.Close() != nil || w.Watch(1, closed, old) {
		t.Error("one that is closed is watched")
	}
	if n := w.Watched(); n != 1 {
		t.Errorf("%d are watched", n)
	}
}

// Many that leave at once are all heard.
func TestACrowdLeaves(t *testing.T) {
	const n = 300
	w, heard := start(t), make(told, n)
	var clients []*net.TCPConn
	for id := range uint64(n) {
		client, server := pair(t)
		w.Watch(id, server, heard)
		clients = append(clients, client)
	}
	for _, c := range clients {
		c.Close()
	}
	for range n {
		heard.next(t)
	}
}

// A watcher that there is none of watches nothing.
func TestNoWatcher(t *testing.T) {
	var w *Watcher
	_, server := pair(t)
	if w.Watch(1, server, nil) || w.Watched() != 0 {
		t.Error("it watches")
	}
	w.Forget(1)
	w.Close()
}
