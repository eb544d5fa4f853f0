package http2

import (
	"errors"
	"io"
	"os"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Next implements exchange.Body.
func (l *lane) Next() ([]byte, error) {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	l.giveBack(len(l.taken))
	free := l.taken[:0]
	if cap(free) > maxKept {
		free = nil
	}
	l.taken = free
	for len(l.pending) == 0 {
		if l.ended {
			l.endTrailers()
			return nil, io.EOF
		}
		if err := l.await(); err != nil {
			l.failure = l.says(err)
			return nil, l.failure
		}
	}
	l.taken, l.pending, l.reads.late = l.pending, free, false
	return l.taken, nil
}

// Failed implements upstream.Lane.
func (l *lane) Failed() error { return l.failure }

// endTrailers hands the trailers over with the end of the body.
func (l *lane) endTrailers() {
	from, to := &l.answer.trailers, &l.x.Response.Trailers
	for i := range from.Len() {
		f := from.At(i)
		to.AddParsed(f.Name, f.Value)
	}
	from.Reset()
}

// Length implements exchange.Body.
func (l *lane) Length() int64 {
	l.conn.mu.Lock()
	defer l.conn.mu.Unlock()
	switch {
	case l.left >= 0: // it was announced, and does not change with what has arrived
		return l.left + int64(len(l.pending))
	case l.ended && !l.trailing:
		return int64(len(l.pending))
	}
	return -1
}

// Ready reports whether Next will not have to wait.
func (l *lane) Ready() bool {
	l.conn.mu.Lock()
	defer l.conn.mu.Unlock()
	return len(l.pending) > 0 || l.ended || l.dead != nil || l.aborted
}

// Whole reports whether what Next has returned was all, without trailers.
func (l *lane) Whole() bool {
	l.conn.mu.Lock()
	defer l.conn.mu.Unlock()
	return l.ended && !l.trailing && len(l.pending) == 0
}

// giveBack lets the service send n bytes more, on this stream and in all. The
// caller holds the lock.
func (l *lane) giveBack(n int) {
	c := l.conn
	c.giveBack(n)
	if l.ended || l.dead != nil {
		return
	}
	if l.credit += n; l.credit >= smallestWindowUpdate {
		c.out.set(appendWindow(c.out.bytes(), l.id, l.credit))
		l.recvWindow += int64(l.credit)
		l.credit = 0
	}
}

var errUnwanted = errors.New("the rest of the request is not wanted")

// Send implements upstream.Sink.
func (l *lane) Send(p []byte, last bool) error {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		n, err := l.room(len(p))
		if err != nil {
			return err
		}
		if n == 0 {
			if err := l.awaitRoom(); err != nil {
				return err
			}
			continue
		}
		end := last && n == len(p)
		b := appendHeader(c.out.bytes(), n, frameData, endFlag(end), l.id)
		c.out.set(append(b, p[:n]...))
		l.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		l.sent = end
		p = p[n:]
		if end || c.out.pending() >= pageSize-headerSize {
			c.out.flush(true)
		}
	}
	return nil
}

// room is how many of n bytes may be appended now. The caller holds the lock.
func (l *lane) room(n int) (int, error) {
	c := l.conn
	switch {
	case l.dead != nil:
		return 0, l.dead
	case l.unwanted || l.ended:
		return 0, errUnwanted
	case l.aborted:
		return 0, os.ErrDeadlineExceeded
	}
	if c.out.pending() < full {
		if n := min(int64(n), maxFrame, l.sendWindow, c.sendWindow); n > 0 {
			l.sends.late = false
			return int(n), nil
		}
	}
	if l.sends.late {
		return 0, os.ErrDeadlineExceeded
	}
	return 0, nil
}

// awaitRoom waits until something has changed about it. The caller holds the
// lock.
func (l *lane) awaitRoom() error {
	c := l.conn
	if c.out.flush(true) { // the service cannot give windows for what it does not get
		return nil
	}
	l.sends.until = l.until()
	c.clock.by(l.sends.until)
	c.out.waiting++
	l.cond.Wait()
	c.out.waiting--
	l.sends.until = 0
	return nil
}

// Flush implements upstream.Sink.
func (l *lane) Flush() error {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.flush(true)
	return l.dead
}

func (l *lane) flush() { _ = l.Flush() }

// End implements upstream.Sink.
func (l *lane) End(trailers *exchange.Fields) error {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case l.dead != nil:
		return l.dead
	case l.unwanted:
		return errUnwanted
	}
	if trailers.Len() > 0 {
		c.out.head(l.id, flagEndStream, func(b []byte) []byte {
			b, _ = appendFields(b, trailers)
			return b
		})
	} else {
		c.out.set(appendHeader(c.out.bytes(), 0, frameData, flagEndStream, l.id))
	}
	l.sent = true
	c.out.flush(true)
	return nil
}
