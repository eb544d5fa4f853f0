package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is the two ends of a TCP connection.
func pair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

// opaque hides what a connection is, as TLS does.
type opaque struct{ *net.TCPConn }

func (o opaque) Read(p []byte) (int, error)  { return o.TCPConn.Read(p) }
func (o opaque) Write(p []byte) (int, error) { return o.TCPConn.Write(p) }

// relayed is a relay at work between a client and a service.
type relayed struct {
	client, service *net.TCPConn
	counts          relay.Counts
	cancel          context.CancelFunc
	done            chan error
}

// way is how a relay is done.
type way string

const (
	spliced way = "spliced"
	copied  way = "copied"
	through way = "through a tap"
)

func start(t *testing.T, how way, idle time.Duration) *relayed {
	t.Helper()
	r := &relayed{done: make(chan error, 1)}
	var nearClient, nearService *net.TCPConn
	nearClient, r.client = pair(t)
	nearService, r.service = pair(t)
	side := relay.Plain(nearClient)
	if how == copied {
		side.Conn = opaque{nearClient}
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(t.Context())
	t.Cleanup(r.cancel)
	go func() {
		if how == through {
			r.done <- relay.RunTapped(ctx, side, relay.Plain(nearService), idle, &r.counts, open{}, nil)
			return
		}
		r.done <- relay.Run(ctx, side, relay.Plain(nearService), idle, &r.counts)
	}()
	return r
}

// each tests every way of relaying: they promise the same.
func each(t *testing.T, test func(t *testing.T, how way)) {
	for _, how := range []way{spliced, copied, through} {
		t.Run(string(how), func(t *testing.T) { test(t, how) })
	}
}

// What each side says arrives at the other, and so does that it has ended, while
// the other still speaks.
func TestBothWaysAndHalfAClose(t *testing.T) {
	each(t, func(t *testing.T, how way) {
		r := start(t, how, time.Minute)
		question, answer := make([]byte, 5<<20), make([]byte, 3<<20)
		rand.Read(question)
		rand.Read(answer)
		var sides sync.WaitGroup
		sides.Go(func() {
			_, _ = r.client.Write(question)
			r.client.CloseWrite()
		})
		if got, err := io.ReadAll(r.service); err != nil || !bytes.Equal(got, question) {
			t.Errorf("the service got %d bytes, %v", len(got), err)
		}
		sides.Go(func() { // only now: the client has ended, and listens
			_, _ = r.service.Write(answer)
			r.service.CloseWrite()
		})
		if got, err := io.ReadAll(r.client); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("the client got %d bytes, %v", len(got), err)
		}
		sides.Wait()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		if in, out := r.counts.In.Load(), r.counts.Out.Load(); in != 5<<20 || out != 3<<20 {
			t.Errorf("counted %d in, %d out", in, out)
		}
	})
}

func TestABrokenSideBreaksTheOther(t *testing.T) {
	each(t, func(t *testing.T, how way) {
		r := start(t, how, time.Minute)
		r.service.SetLinger(0)
		r.service.Close()
		if _, err := r.client.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the client sees %v", err)
		}
		if err := <-r.done; err == nil {
			t.Error("it is taken for a clean end")
		}
	})
}

func TestIdle(t *testing.T) {
	each(t, func(t *testing.T, how way) {
		r := start(t, how, 50*time.Millisecond)
		if err := <-r.done; !errors.Is(err, relay.ErrIdle) {
			t.Errorf("got %v", err)
		}
	})
	// A reader that takes a little now and then, of a block that takes long: it is
	// slow, not idle.
	t.Run("slow is not idle", func(t *testing.T) {
		r := start(t, spliced, 300*time.Millisecond)
		r.client.SetReadBuffer(4 << 10)
		var sides sync.WaitGroup
		sides.Go(func() { _, _ = io.Copy(r.service, io.LimitReader(zeros{}, 64<<20)) })
		buf := make([]byte, 16<<10)
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if _, err := io.ReadFull(r.client, buf); err != nil {
				t.Errorf("it was cut: %v", err)
				break
			}
		}
		r.cancel()
		sides.Wait()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("who does not read at all is", func(t *testing.T) {
		r := start(t, spliced, 200*time.Millisecond)
		var sides sync.WaitGroup
		sides.Go(func() { _, _ = io.Copy(r.service, zeros{}) })
		if err := <-r.done; !errors.Is(err, relay.ErrIdle) {
			t.Errorf("got %v", err)
		}
		sides.Wait()
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestTheContextEndsBoth(t *testing.T) {
	each(t, func(t *testing.T, how way) {
		r := start(t, how, time.Minute)
		r.cancel()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		for _, c := range []net.Conn{r.client, r.service} {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a side is open")
			}
		}
	})
}
