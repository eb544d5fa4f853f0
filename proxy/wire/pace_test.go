package wire_test

import (
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/wire"
)

func TestPace(t *testing.T) {
	const grace = time.Minute
	for name, c := range map[string]struct {
		bytes int64
		each  time.Duration
		waits int // until it has taken too long; 0: never, in 10,000
	}{
		"a byte a second":       {1, time.Second, 60},
		"a byte now and then":   {1, 30 * time.Second, 2},
		"nothing":               {0, 10 * time.Second, 6},
		"slow, but fast enough": {wire.MinRate, time.Second, 0},
		"much, now and then":    {1 << 20, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var p wire.Pace
			waits := 0
			for range 10_000 {
				if p.Left(grace) == 0 {
					break
				}
				waits++
				p.Waited(c.each)
				p.Moved(c.bytes)
			}
			if c.waits == 0 && waits < 10_000 || c.waits > 0 && waits != c.waits {
				t.Errorf("cut after %d waits", waits)
			}
		})
	}
}
