// Package relay carries packets and connections between two ends and makes
// what lies between them slow, lossy or broken. The kernels that tests run on
// need not know how to.
//
//	r := relay.UDP(t, 7, socket, dial)        // socket and dial may come from package hosts
//	r.Set(relay.Conditions{Delay: 20 * time.Millisecond, Reorder: 0.05})
//	use(r.Addr())
//
// A relay has a line for each direction of each client. All draws of a line
// come from the relay's seed, the client's number and the direction, and every
// packet takes the same number of draws: so what happens to the n-th packet of
// a line depends on the seed and the conditions alone, not on the time.
//
// All queues have bounds. A UDP line that is full loses packets, as a router
// would; a TCP line that is full stops reading, so that the sender is slowed
// down. A relay ends with its test, and all its goroutines with it.
package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// Conditions of the lines of a UDP relay, in both directions. The zero value
// is a perfect line.
type Conditions struct {
	Delay  time.Duration // of each packet
	Jitter time.Duration // up to so much more, without changing their order

	// Shares of packets, 0 to 1.
	Drop      float64
	Duplicate float64
	Reorder   float64 // held back as long again, while later ones pass
}

// A Dial opens the relay's own connection to the far end.
type Dial func(context.Context) (net.Conn, error)

func (c Conditions) validate() error {
	for _, share := range []float64{c.Drop, c.Duplicate, c.Reorder} {
		if share < 0 || share > 1 {
			return fmt.Errorf("a share of packets is %g, not 0 to 1", share)
		}
	}
	if c.Delay < 0 || c.Jitter < 0 {
		return fmt.Errorf("a delay is negative: %v, %v", c.Delay, c.Jitter)
	}
	return nil
}

// held is how long a packet is held back that is to be overtaken: more than a
// moment even on a line without delay.
func (c Conditions) held() time.Duration { return c.Delay + c.Jitter + time.Millisecond }

// A shaper decides what happens to the packets of one line.
type shaper struct {
	random *rand.Rand
	last   time.Time // when the line delivers the newest packet that keeps its place
}

const (
	there = iota // from the client to the far end
	back
)

func newShaper(seed uint64, client, direction int) *shaper {
	return &shaper{random: rand.New(rand.NewPCG(seed, uint64(client)<<1|uint64(direction)))}
}

// fate says when the copies of a packet are delivered; none if it is lost.
func (s *shaper) fate(now time.Time, c Conditions) []time.Time {
	drop, twice, late, jitter := s.random.Float64(), s.random.Float64(), s.random.Float64(), s.random.Float64()
	if drop < c.Drop {
		return nil
	}
	due := now.Add(c.Delay + time.Duration(jitter*float64(c.Jitter)))
	if late < c.Reorder {
		due = due.Add(c.held())
	} else {
		due = s.inOrder(due)
	}
	if twice < c.Duplicate {
		return []time.Time{due, due}
	}
	return []time.Time{due}
}

func (s *shaper) inOrder(due time.Time) time.Time {
	if due.Before(s.last) {
		due = s.last
	}
	s.last = due
	return due
}
