package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

// narrow returns a pool of few connections, and the queue before it.
func narrow(t testing.TB, address string, connections int, queue int64) (*upstream.Pool, *upstream.Queue) {
	r := upstream.NewRegistry(nil)
	t.Cleanup(r.Close)
	return r.Acquire(upstream.Key{Address: address, MaxConnections: connections}), &upstream.Queue{Max: queue, Waiting: new(atomic.Int64)}
}

// ask sends one request and reads its answer.
func ask(ctx context.Context, p *upstream.Pool, opts upstream.Options, body string) error {
	x := request(exchange.Bytes([]byte(body)))
	var s upstream.Stream
	opts.Now = time.Now()
	if err := s.Open(ctx, p, x, opts); err != nil {
		return err
	}
	defer s.Close(x)
	for {
		if _, err := x.Response.Body.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestNoMoreConnectionsThanAllowed(t *testing.T) {
	var open, most atomic.Int64
	addr := endpoint(t, func(c net.Conn, in *bufio.Reader) {
		n := open.Add(1)
		defer open.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		answering(c, in)
	})
	p, q := narrow(t, addr, 3, 100)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for range 50 {
				if err := ask(t.Context(), p, upstream.Options{Stall: time.Minute, Queue: q}, "hello"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if most.Load() > 3 || q.Waiting.Load() != 0 {
		t.Errorf("%d connections at a time; %d still wait", most.Load(), q.Waiting.Load())
	}
}

func TestWhoFindsTheQueueFullIsTurnedAway(t *testing.T) {
	addr := endpoint(t, silent)
	p, q := narrow(t, addr, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	opts := upstream.Options{Now: time.Now(), Stall: time.Minute, Queue: q}
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	var holder upstream.Stream
	held := request(exchange.Bytes([]byte("x")))
	callers.Go(func() { _ = holder.Open(ctx, p, held, opts) })
	await(t, func() bool { return p.Stats().Dials == 1 })
	callers.Go(func() {
		if err := ask(ctx, p, opts, "x"); err == nil || errors.Is(err, upstream.ErrFull) {
			t.Errorf("the one who waits got %v", err)
		}
	})
	await(t, func() bool { return q.Waiting.Load() == 1 })
	var u *upstream.Error
	if err := ask(ctx, p, opts, "x"); !errors.Is(err, upstream.ErrFull) || !errors.As(err, &u) || u.Sent {
		t.Errorf("got %v", err)
	}
	cancel() // ends the wait of the second
	await(t, func() bool { return q.Waiting.Load() == 0 })
	holder.Abort()
}

func await(t testing.TB, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
	}
}

func TestAWaitEndsWithTheDeadline(t *testing.T) {
	release := make(chan struct{})
	addr := endpoint(t, func(c net.Conn, in *bufio.Reader) { <-release; answering(c, in) })
	p, q := narrow(t, addr, 1, 10)
	var callers sync.WaitGroup
	callers.Go(func() {
		if err := ask(t.Context(), p, upstream.Options{Stall: time.Minute, Queue: q}, "x"); err != nil {
			t.Error(err)
		}
	})
	await(t, func() bool { return p.Stats().Dials == 1 })
	err := ask(t.Context(), p, upstream.Options{Stall: time.Minute, Queue: q, Deadline: time.Now().Add(50 * time.Millisecond)}, "x")
	var u *upstream.Error
	if !errors.As(err, &u) || !u.Timeout || u.Sent {
		t.Errorf("got %v", err)
	}
	close(release)
	callers.Wait()
	if err := ask(t.Context(), p, upstream.Options{Stall: time.Minute, Queue: q}, "x"); err != nil {
		t.Errorf("the place is lost: %v", err)
	}
}

// However connections end, no place is lost and none is given twice.
func TestPlacesAreNeitherLostNorDoubled(t *testing.T) {
	var open, most atomic.Int64
	addr := endpoint(t, func(c net.Conn, in *bufio.Reader) {
		n := open.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				break
			}
			body, _ := io.ReadAll(r.Body)
			if string(body) == "reset" {
				break
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			if string(body) == "once" { // and it closes unasked, so that the next finds it stale
				break
			}
		}
		open.Add(-1) // before the other end can see that it is closed
		c.Close()
	})
	p, q := narrow(t, addr, 4, 100)
	var callers sync.WaitGroup
	for seed := range uint64(12) {
		callers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 2))
			for range 60 {
				opts := upstream.Options{Stall: time.Minute, Queue: q}
				if r.IntN(8) == 0 {
					opts.Deadline = time.Now().Add(time.Duration(r.IntN(300)) * time.Microsecond)
				}
				_ = ask(t.Context(), p, opts, []string{"reset", "once", "hello", "hello"}[r.IntN(4)])
			}
		})
	}
	callers.Wait()
	if q.Waiting.Load() != 0 {
		t.Errorf("%d still wait", q.Waiting.Load())
	}
	all := make([]upstream.Stream, 4)
	exchanges := make([]*exchange.Exchange, 4)
	for i := range all { // four at a time: none of the places is lost
		var stale *upstream.Error
		for {
			exchanges[i] = request(exchange.Bytes([]byte("hello")))
			err := all[i].Open(t.Context(), p, exchanges[i], upstream.Options{Now: time.Now(), Stall: time.Minute, Queue: q})
			if errors.As(err, &stale) && stale.Stale {
				continue // one that was kept, and was closed just as it was asked
			}
			if err != nil {
				t.Error(err)
			}
			break
		}
	}
	err := ask(t.Context(), p, upstream.Options{Stall: time.Minute, Queue: &upstream.Queue{Waiting: new(atomic.Int64)}}, "x")
	if !errors.Is(err, upstream.ErrFull) {
		t.Errorf("a fifth is let in: %v", err)
	}
	for i := range all {
		all[i].Close(exchanges[i])
	}
}
