package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Tap sees what passes, may change it, and may hold it back.
type Tap interface {
	// Attach says how to have the client's, or the service's, bytes asked about again
	// though nothing has come: by a call of FromClient or FromService with nothing.
	// Both may be called by anyone, at any time, and do not block.
	Attach(wakeClient, wakeService func())
	// FromClient is shown a piece of what the client has said, and returns what is to be
	// passed on before it is called again. end: nothing follows the piece. ended:
	// nothing follows what is returned. What it fails with ends both sides.
	FromClient(piece []byte, end bool) (out []byte, ended bool, err error)
	FromService(piece []byte, end bool) (out []byte, ended bool, err error)
	// Broken says that a side's connection has broken: it was not closed here.
	Broken(client bool)
}

// ErrEnded is what a tap's error wraps that closes both connections as if all had been
// said, instead of breaking them off.
var ErrEnded = errors.New("connection is ended")

// RunTapped is Run with a tap, through which all bytes pass: nothing is spliced. said
// is what the client has said already.
func RunTapped(ctx context.Context, client, service Side, idle time.Duration, counts *Counts, tap Tap, said []byte) error {
	r := &run{client: client, service: service, counts: counts, idle: idle, seen: -1}
	r.taps = [2]*tapped{
		newTapped(client.Conn, tap.FromClient, func() { tap.Broken(true) }),
		newTapped(service.Conn, tap.FromService, func() { tap.Broken(false) }),
	}
	r.taps[0].said = said
	tap.Attach(r.taps[0].wake, r.taps[1].wake)
	return r.run(ctx)
}

// tapped is one direction that has a tap.
type tapped struct {
	from net.Conn
	pass func(piece []byte, end bool) ([]byte, bool, error)
	said []byte
	// broken is told of a read that fails.
	broken func()

	woken   chan struct{}
	stopped chan struct{}
	once    sync.Once
}

func newTapped(from net.Conn, pass func([]byte, bool) ([]byte, bool, error), broken func()) *tapped {
	return &tapped{from: from, pass: pass, broken: broken, woken: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// longAgo ends a read that is under way, or about to begin.
var longAgo = time.Unix(1, 0)

// wake has the tap asked again. Whoever reads is awakened by a deadline that is over;
// who has nothing more to read waits for the channel.
func (t *tapped) wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
	_ = t.from.SetReadDeadline(longAgo) // fails only on a closed connection
}

func (t *tapped) stop() { t.once.Do(func() { close(t.stopped) }) }

// copy passes on what comes, as the tap has it, until the tap says that it has ended.
func (t *tapped) copy(to io.Writer, from net.Conn, counted *Counter) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	end := false
	piece := t.said
	for first := len(piece) > 0; ; first = false {
		if !first {
			var err error
			if piece, end, err = t.next(*buf, end); err != nil {
				return err
			}
		}
		out, ended, err := t.pass(piece, end)
		if err != nil {
			return err
		}
		if len(out) > 0 {
			n, err := to.Write(out)
			counted.Add(int64(n))
			if err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// next is what comes next: a piece, the end, or nothing but a call of wake.
func (t *tapped) next(buf []byte, end bool) ([]byte, bool, error) {
	if end {
		select {
		case <-t.woken:
			return nil, true, nil
		case <-t.stopped:
			return nil, true, net.ErrClosed
		}
	}
	n, err := t.from.Read(buf)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// In this order: a wake that comes in between is seen at the next read.
		err = t.from.SetReadDeadline(time.Time{})
		select {
		case <-t.woken:
		default:
		}
	case err == io.EOF:
		end, err = true, nil
	case err != nil && !errors.Is(err, net.ErrClosed):
		t.broken()
	}
	return buf[:n], end, err
}
