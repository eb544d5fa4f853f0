package listener

import (
	"time"

	"github.com/weirmesh/weir/proxy/wire"
)

// pace is how fast a request's body comes. Only one whose length is known has to
// come at a pace: another one may be a conversation.
type pace struct {
	wire.Pace
	length int64     // of what was left when the first wait began; below 0: not known
	here   int64     // of it, that came before the last wait
	began  time.Time // the last wait
}

// patience is how long a wait for the body may take that begins now.
func (c *conn) patience(now time.Time) time.Duration {
	stall := c.listener.cfg.Stall
	c.pace.began = now
	if c.pace.length < 0 {
		return stall
	}
	return min(stall, c.pace.Left(stall))
}

// paceBody runs after each wait.
func (c *conn) paceBody() {
	if c.pace.length < 0 {
		return
	}
	c.pace.Waited(time.Since(c.pace.began))
	here := c.pace.length - c.body.Length() + int64(len(c.wire.Buffered()))
	c.pace.Moved(here - c.pace.here)
	c.pace.here = here
}
