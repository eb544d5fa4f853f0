package nodeport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
)

// network is what package cluster asks for.
type network interface {
	Dial(ctx context.Context, address, member string) (net.Conn, error)
	Accept(ctx context.Context) (conn net.Conn, member string, err error)
}

var _ network = (*Members)(nil)

// A detour that drops all UDP makes the same tests run over TCP.
func overBoth(t *testing.T, f func(t *testing.T, a, b *server, address string)) {
	for name, block := range map[string]bool{"QUIC": false, "TCP": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			a, b := c.serve("a"), c.serve("b")
			d := newDetour(t, b.address)
			if block {
				d.blockUDP()
				a.dialer.cfg.HeadStart = 10 * time.Millisecond
			}
			f(t, a, b, d.address)
			if wasTCP := a.dialer.path(d.address).hasUsers(); block != wasTCP {
				t.Errorf("over TCP: %v", wasTCP)
			}
		})
	}
}

func (p *path) hasUsers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.users > 0
}

func TestStreamsCarryBytesBothWays(t *testing.T) {
	overBoth(t, func(t *testing.T, a, b *server, address string) {
		near, far := pair(t, a, b, address)
		var sums [4][]byte
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		var moving sync.WaitGroup
		for i, end := range []net.Conn{near, far} {
			moving.Go(func() {
				if _, err := end.Write(big); err != nil {
					t.Error(err)
				}
			})
			moving.Go(func() {
				h := sha256.New()
				if _, err := io.CopyN(h, end, int64(len(big))); err != nil {
					t.Error(err)
				}
				sums[i] = h.Sum(nil)
			})
		}
		moving.Wait()
		want := sha256.Sum256(big)
		if !bytes.Equal(sums[0], want[:]) || !bytes.Equal(sums[1], want[:]) {
			t.Fatal("the bytes differ")
		}
	})
}

func TestStreamsKeepDeadlines(t *testing.T) {
	overBoth(t, func(t *testing.T, a, b *server, address string) {
		near, _ := pair(t, a, b, address)
		_ = near.SetReadDeadline(time.Now().Add(-time.Second))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_ = near.SetReadDeadline(time.Time{})
		if near.LocalAddr() == nil || near.RemoteAddr() == nil {
			t.Fatal("it has no addresses")
		}
	})
}

// What was written before Close arrives, and then the end; the other direction
// ends as well, as does a Write that waits.
func TestCloseEndsBothDirections(t *testing.T) {
	overBoth(t, func(t *testing.T, a, b *server, address string) {
		near, far := pair(t, a, b, address)
		if _, err := near.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := near.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(far); err != nil || string(got) != "last words" {
			t.Fatalf("got %q, %v", got, err)
		}
		if _, err := near.Read(make([]byte, 1)); err == nil {
			t.Fatal("a closed stream was read from")
		}
		if _, err := near.Write([]byte("x")); err == nil {
			t.Fatal("a closed stream was written to")
		}
		full := make(chan error, 1)
		go func() {
			for {
				if _, err := far.Write(make([]byte, 1<<16)); err != nil {
					full <- err
					return
				}
			}
		}()
		select {
		case <-full:
		case <-time.After(patience):
			t.Fatal("the far end can still write")
		}

		near, far = pair(t, a, b, address)
		go func() {
			for {
				if _, err := near.Write(make([]byte, 1<<20)); err != nil {
					full <- err
					return
				}
			}
		}()
		if _, err := io.ReadFull(far, make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
		near.Close()
		select {
		case <-full:
		case <-time.After(patience):
			t.Fatal("Close did not end a Write that waits")
		}
		pair(t, a, b, address) // what comes after is not affected
	})
}

func TestStreamsShareOneConnection(t *testing.T) {
	c := newCluster(t)
	a, b := c.serve("a"), c.serve("b")
	var dials sync.WaitGroup
	const streams = 50
	for range streams {
		dials.Go(func() {
			conn, err := a.members.Dial(bounded(t), b.address, "b")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { conn.Close() })
		})
	}
	dials.Wait()
	for range streams {
		conn, _, err := b.members.Accept(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if n := b.port.connections.Load(); n != 1 {
		t.Fatalf("%d connections", n)
	}
}

func TestDialProvesWhoAnswers(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	a, b, foreign := c.serve("a"), c.serve("b"), other.serve("b")
	for name, tc := range map[string]struct {
		address, member, want string
	}{
		"any server":        {b.address, "", ""},
		"another server":    {b.address, "c", "it is not the server c"},
		"another cluster's": {foreign.address, "b", "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := a.members.Dial(bounded(t), tc.address, tc.member)
			if err == nil {
				conn.Close()
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !WrongPeer(err)) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// An edge does not get as far as a stream.
func TestAnEdgeIsNoMember(t *testing.T) {
	c := newCluster(t)
	b := c.serve("b")
	d := newDialer(t, b.log, DialerConfig{})
	m := NewMembers(c.node(identity.RoleEdge, "e1"), d)
	t.Cleanup(func() { m.Close() })
	if conn, err := m.Dial(bounded(t), b.address, "b"); err == nil {
		conn.Close()
		t.Fatal("an edge opened a stream between servers")
	} else if !WrongPeer(err) {
		t.Fatalf("got %v", err)
	}
}

// Streams that nobody accepts are refused at some point, and those after that
// are not once there is room.
func TestStreamsThatNobodyAcceptsAreRefused(t *testing.T) {
	c := newCluster(t)
	a, b := c.serve("a"), c.serve("b")
	for range maxArrived {
		conn, err := a.members.Dial(bounded(t), b.address, "b")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if _, err := a.members.Dial(bounded(t), b.address, "b"); !errors.Is(err, errBusy) {
		t.Fatalf("got %v", err)
	}
	if _, _, err := b.members.Accept(bounded(t)); err != nil {
		t.Fatal(err)
	}
	conn, err := a.members.Dial(bounded(t), b.address, "b")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// A server that was restarted is dialled anew.
func TestMembersSurviveARestart(t *testing.T) {
	c := newCluster(t)
	a, b := c.serve("a"), c.serve("b")
	near, _ := pair(t, a, b, b.address)
	b.stop()
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Fatal("the stream outlived its server")
	}
	if _, err := a.members.Dial(bounded(t), b.address, "b"); err == nil {
		t.Fatal("a server that is gone took a stream")
	}
	again := c.serveAt("b", b.address)
	pair(t, a, again, again.address)
	if n := a.log.count("does not answer"); n != 0 {
		t.Error("a server that was down was taken for one without UDP")
	}
}

func TestMembersThatAreClosed(t *testing.T) {
	c := newCluster(t)
	a, b := c.serve("a"), c.serve("b")
	near, far := pair(t, a, b, b.address)
	if err := a.members.Close(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []net.Conn{near, far} {
		if _, err := end.Read(make([]byte, 1)); err == nil {
			t.Error("a stream goes on")
		}
	}
	if _, err := a.members.Dial(bounded(t), b.address, "b"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if _, _, err := a.members.Accept(bounded(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := b.members.Accept(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Accept with an ended context: %v", err)
	}
}

// Whatever bytes a stream begins with, it is taken, refused or ended, and room
// is given back with every error.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{greeting}, true)
	f.Add([]byte{}, true)
	f.Add([]byte{greeting, 1, 2, 3}, false)
	f.Add([]byte{0xff}, true)
	f.Fuzz(func(t *testing.T, sent []byte, room bool) {
		taken := 0
		conn := &script{Reader: bytes.NewReader(sent)}
		err := receive(conn, func() error { return nil }, func() bool {
			if room {
				taken++
			}
			return room
		}, func() { taken-- })
		if greeted := len(sent) > 0 && sent[0] == greeting; (err == nil) != (greeted && room) {
			t.Fatalf("%x with room %v: %v", sent, room, err)
		}
		if (taken == 1) != (err == nil) {
			t.Fatalf("%d places taken, %v", taken, err)
		}
		if len(sent) > 0 && conn.wrote.Len() != 1 {
			t.Fatalf("the answer is %x", conn.wrote.Bytes())
		}
	})
}

// Nor does an answer of any kind do harm.
func FuzzGreet(f *testing.F) {
	f.Add([]byte{answerTaken})
	f.Add([]byte{answerBusy})
	f.Add([]byte{answerRefused, 3, 'n', 'o', 0xff})
	f.Add([]byte{answerRefused, 255, 'n'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, answer []byte) {
		err := greet(&script{Reader: bytes.NewReader(answer)})
		if taken := len(answer) > 0 && answer[0] == answerTaken; (err == nil) != taken {
			t.Fatalf("%x: %v", answer, err)
		}
	})
}

type script struct {
	io.Reader
	wrote bytes.Buffer
}

func (s *script) Write(p []byte) (int, error) { return s.wrote.Write(p) }

// A server that was removed is told so, whichever way it comes, and at the next
// stream where it is connected; who is still one is let in.
func TestRemovedServerIsRefusedWithTheReason(t *testing.T) {
	for name, block := range map[string]bool{"QUIC": false, "TCP": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			a := c.serve("a")
			var removed atomic.Bool
			port, err := Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			log := newDiary(t)
			b := startServer(t, port, Config{Identity: c.node(identity.RoleServer, "b"), Refuse: func(leaf *x509.Certificate) error {
				if !removed.Load() {
					return nil
				}
				return errors.New(leaf.Subject.CommonName + " was removed")
			}}, log)
			d := newDetour(t, b.address)
			if block {
				d.blockUDP()
				a.dialer.cfg.HeadStart = 10 * time.Millisecond
			}
			near, _ := pair(t, a, b, d.address)
			defer near.Close()
			removed.Store(true)
			for range 3 {
				_, err := a.members.Dial(bounded(t), d.address, "b")
				var refused *RefusedError
				if !errors.As(err, &refused) || refused.Reason != "a was removed" {
					t.Fatalf("it is told %v", err)
				}
			}
			if n := log.count("a was removed"); n != 1 {
				t.Errorf("it is logged %d times", n)
			}
			removed.Store(false)
			again, _ := pair(t, a, b, d.address)
			again.Close()
		})
	}
}
