package nodeapi

import (
	"context"
	"errors"
	"time"
)

// errHeld is why a client that is held takes nothing in.
var errHeld = errors.New("another process is to go on from here")

// Hold has a client that runs leave all that is on disk to another process: what is held
// is not changed any more, the certificate is not renewed. It returns once that is so.
// There is a stream all the while: servers see that the proxy is there until it comes by a
// newer one, and Ahead is still told what cannot wait. Calls of other kinds go on as well.
// There is no way back but a new client.
func (c *Client) Hold() {
	c.hold()
	select {
	case <-c.held:
	case <-c.life.Done():
	}
}

// stay says by a stream what is in force, and takes nothing in.
func (f *follower) stay(ctx context.Context, stream clientStream, beat *time.Ticker) error {
	f.quiet()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-beat.C:
			if err := f.report(stream); err != nil {
				return err
			}
		}
	}
}
