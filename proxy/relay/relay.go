// Package relay carries bytes between two connections, each way, until both sides
// have said all they have to say.
//
//	client ⇄ Run ⇄ service
//	client ⇄ RunTapped ⇄ [Tap] ⇄ service
//
// # Promises
//
//   - Between two TCP sockets the bytes stay in the kernel (splice), where it can.
//   - Half a close is passed on as that: who has ended what it says goes on
//     hearing. A broken connection is passed on as a broken one (RST).
//   - Nothing is cut that moves: idle is when neither side has taken or sent a byte
//     for a while, as the kernel counts them, however slowly a byte moves.
//   - Run returns when both directions have ended, and both connections are closed
//     by then. Its context's end is the end of both.
//   - Memory is a buffer of 32 KiB each way at most, and none where bytes are
//     spliced. What a tap holds back is the tap's.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Side is one of the two connections.
type Side struct {
	// Conn is read and written. Socket is the TCP connection below it, or itself.
	Conn   net.Conn
	Socket net.Conn
}

// Plain is a side without anything between it and its socket.
func Plain(c net.Conn) Side { return Side{c, c} }

// Counts are bytes, as they pass.
type Counts struct {
	// In is what the client has sent and the service has got, Out the other way.
	In, Out Counter
}

// Counter counts, and adds what it counts to another one, if there is one.
type Counter struct {
	n   atomic.Int64
	And *atomic.Int64
}

// Add counts n.
func (c *Counter) Add(n int64) {
	c.n.Add(n)
	if c.And != nil {
		c.And.Add(n)
	}
}

// Load is what has been counted.
func (c *Counter) Load() int64 { return c.n.Load() }

// ErrIdle: nothing moved for too long.
var ErrIdle = errors.New("connection is idle")

// block is how much is carried at most before it is counted.
const block = 1 << 20

// Run carries bytes until both sides have ended, ctx has, or nothing has moved for
// idle. What goes wrong on either side ends both.
func Run(ctx context.Context, client, service Side, idle time.Duration, counts *Counts) error {
	return (&run{client: client, service: service, counts: counts, idle: idle, seen: -1}).run(ctx)
}

func (r *run) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.fail(context.Cause(ctx)) })
	defer stop()
	r.mu.Lock()
	r.watch = time.AfterFunc(r.idle, r.look)
	r.mu.Unlock()
	defer r.unwatch()

	done := make(chan struct{})
	go func() {
		defer close(done)
		r.carry(r.service, r.client, &r.counts.In, 0)
	}()
	r.carry(r.client, r.service, &r.counts.Out, 1)
	<-done
	if r.err == nil {
		_ = r.client.Conn.Close() // both have said all, and know it
		_ = r.service.Conn.Close()
	}
	return r.err
}

// run is one Run.
type run struct {
	client, service Side
	counts          *Counts
	idle            time.Duration
	taps            [2]*tapped // of the client's bytes, and of the service's
	seen            int64      // what had moved when it was last looked

	mu    sync.Mutex
	watch *time.Timer
	over  bool
	err   error
}

// carry passes on what from says, and that it has ended.
func (r *run) carry(to, from Side, counted *Counter, way int) {
	var err error
	if t := r.taps[way]; t != nil {
		err = t.copy(to.Conn, from.Conn, counted)
	} else {
		err = copyCounting(to.Conn, from.Conn, counted)
	}
	if err == nil {
		if w, ok := to.Conn.(interface{ CloseWrite() error }); ok {
			err = w.CloseWrite()
		}
		if errors.Is(err, net.ErrClosed) || isNotConnected(err) {
			err = nil // it has left already, and the other direction knows
		}
	}
	if err != nil {
		r.fail(err)
	}
}

// fail breaks both connections off. The first reason counts.
func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = err
	for _, t := range r.taps {
		if t != nil {
			t.stop()
		}
	}
	for _, s := range []Side{r.client, r.service} {
		if errors.Is(err, ErrEnded) {
			_ = s.Conn.Close()
			continue
		}
		if t, ok := s.Socket.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = s.Socket.Close()
	}
}

// look ends what has been idle since it last looked.
func (r *run) look() {
	moved := r.counts.In.Load() + r.counts.Out.Load() + moved(r.client.Socket) + moved(r.service.Socket)
	if moved == r.seen {
		r.fail(ErrIdle)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = moved
	if !r.over {
		r.watch.Reset(r.idle)
	}
}

func (r *run) unwatch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.watch.Stop()
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyCounting copies to the end of from.
func copyCounting(to, from net.Conn, counted *Counter) error {
	t, okTo := to.(*net.TCPConn)
	f, okFrom := from.(*net.TCPConn)
	if okTo && okFrom {
		return splice(t, f, counted)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := from.Read(*buf)
		if n > 0 {
			m, err := to.Write((*buf)[:n])
			counted.Add(int64(m))
			if err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func splice(to, from *net.TCPConn, counted *Counter) error {
	for {
		limited := &io.LimitedReader{R: from, N: block}
		n, err := to.ReadFrom(limited)
		counted.Add(n)
		if err != nil || limited.N > 0 { // the end, or an error
			return err
		}
	}
}

func isNotConnected(err error) bool {
	var sys *os.SyscallError
	return errors.As(err, &sys) && sys.Syscall == "shutdown"
}
