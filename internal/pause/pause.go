// Package pause waits for some time, or until nobody wants to wait any more.
package pause

import (
	"context"
	"time"
)

// For waits, and tells whether the time is over: if not, the context is.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
