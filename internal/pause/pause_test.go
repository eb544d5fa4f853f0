package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/internal/pause"
)

func TestFor(t *testing.T) {
	ended, end := context.WithCancel(context.Background())
	end()
	for name, c := range map[string]struct {
		ctx  context.Context
		wait time.Duration
		want bool
	}{
		"the time is over":      {context.Background(), time.Hour, true},
		"nothing to wait for":   {context.Background(), 0, true},
		"less than nothing":     {context.Background(), -1, true},
		"the context is over":   {ended, time.Hour, false},
		"so it is, and no wait": {ended, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				if got := pause.For(c.ctx, c.wait); got != c.want {
					t.Errorf("got %v", got)
				}
				if took := time.Since(began); c.want && took != max(c.wait, 0) || !c.want && took != 0 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
