package nodeapi

import (
	"os"
	"time"
)

// writeLimit bounds each write to a caller. It is no deadline of the stream's:
// with HTTP/2 of net/http that ends a stream even when nobody writes, and most
// streams are silent for far longer than a write may take.
type writeLimit struct {
	most  time.Duration
	timer *time.Timer
	late  chan struct{} // closed once a write was broken off
}

// limit is one for the writes to this caller, for one goroutine.
func (c *caller) limit(most time.Duration) *writeLimit {
	l := &writeLimit{most: most, late: make(chan struct{})}
	l.timer = time.AfterFunc(most, func() {
		_ = c.writeBy(time.Unix(1, 0)) // long past: what waits fails
		close(l.late)
	})
	l.timer.Stop()
	return l
}

// hold breaks a write off that takes too long. The stream is good for nothing
// then.
func (l *writeLimit) hold(write func() error) error {
	l.timer.Reset(l.most)
	err := write()
	if !l.timer.Stop() {
		<-l.late // it must not come upon a stream that is over
		return os.ErrDeadlineExceeded
	}
	return err
}

// lastWords bounds what is still to be written of a stream that ends now: why.
func (c *caller) lastWords(most time.Duration) { _ = c.writeBy(time.Now().Add(most)) }
