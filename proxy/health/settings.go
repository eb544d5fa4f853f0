package health

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Settings of a service. What they point to is not changed.
type Settings struct {
	Check   *Check   // nil: members are not asked
	Outlier *Outlier // nil: answers are not counted
}

// Check says how members are asked. Every field but HTTP is needed.
type Check struct {
	Interval, Timeout time.Duration
	// Jitter is the part of the interval by which it varies.
	Jitter float64
	// Unhealthy and Healthy are how many checks in a row turn the verdict.
	Unhealthy, Healthy int
	// HTTP is what to ask for; nil: to be let in suffices.
	HTTP *HTTP
}

// HTTP is a request that must be answered with an expected status.
type HTTP struct {
	Path     string
	Host     string // empty: the address
	Expected []Range
}

// Range of statuses, half-open.
type Range struct{ Start, End int }

func (c *Check) equal(d *Check) bool {
	if c == nil || d == nil {
		return c == d
	}
	a, b := *c, *d
	a.HTTP, b.HTTP = nil, nil
	return a == b && c.HTTP.equal(d.HTTP)
}

func (h *HTTP) equal(o *HTTP) bool {
	if h == nil || o == nil {
		return h == o
	}
	return h.Path == o.Path && h.Host == o.Host && slices.Equal(h.Expected, o.Expected)
}

// pause is how long to wait before the next check.
func (c *Check) pause() time.Duration {
	return time.Duration(float64(c.Interval) * (1 + c.Jitter*(2*rand.Float64()-1)))
}

// Outlier says which members are taken out of use by how they answer.
type Outlier struct {
	// How many bad answers in a row are too many; 0: do not count.
	Consecutive5xx, ConsecutiveGatewayErrors uint32
	// Interval is how often a past ejection is forgiven.
	Interval time.Duration
	// An ejection lasts Base times the ejections that are not forgiven, at most
	// Max.
	Base, Max time.Duration
	// MaxPercent of the members may be out at a time; one always may.
	MaxPercent uint32
}

func (o *Outlier) allowed(members int) int {
	return max(1, members*int(o.MaxPercent)/100)
}

func (o *Outlier) duration(ejections int) time.Duration {
	if most := max(o.Max, o.Base); ejections > int(most/o.Base) {
		return most
	}
	return o.Base * time.Duration(ejections)
}
