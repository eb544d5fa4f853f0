package health

import (
	"context"
	"math/rand/v2"
	"time"
)

// Settings of a service. What they point to is not changed.
type Settings struct {
	Check   *Check   // nil: members are not asked
	Outlier *Outlier // nil: answers are not counted
}

// Check says how members are asked. Every field is needed.
type Check struct {
	Interval, Timeout time.Duration
	// Jitter is the part of the interval by which it varies.
	Jitter float64
	// Unhealthy and Healthy are how many checks in a row turn the verdict.
	Unhealthy, Healthy int
	// Question is what they are asked.
	Question Question
}

// Question is put to a member by each check. It is not changed.
type Question interface {
	// Ask returns nil when the member at an address is well.
	Ask(ctx context.Context, address string) error
	// Equal reports whether the other asks the same, so that checks that are
	// declared again go on as they are.
	Equal(other Question) bool
}

func (c *Check) equal(d *Check) bool {
	if c == nil || d == nil {
		return c == d
	}
	a, b := *c, *d
	a.Question, b.Question = nil, nil
	return a == b && c.Question.Equal(d.Question)
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
