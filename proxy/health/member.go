package health

import (
	"context"
	"sync/atomic"
	"time"
)

// Member is one endpoint of a service.
type Member struct {
	group   *Group
	address string

	// How many answers in a row were of a kind; see Report.
	errors, gatewayErrors atomic.Uint32

	// Under group.mu:
	refs   int
	since  time.Time // of which it is, or was last, healthy
	reason string    // why it is not healthy

	// Of the active checks.
	verdict        verdict
	streak         int // of checks that speak against the verdict
	passed, failed uint64
	check          context.CancelFunc // ends the checks; nil when there are none

	// Of outlier detection.
	out                          bool
	until                        time.Time // ejected until, or then when the next ejection is forgiven
	ejections                    int       // that are not forgiven
	ejectionsTotal, refusedTotal uint64
}

// verdict is what the active checks say.
type verdict uint8

const (
	unknown verdict = iota
	passing
	failing
)

// State is what is known of a member.
type State struct {
	Service, Address string
	Healthy          bool
	// Checked: an active check has decided.
	Checked bool
	Ejected bool
	// Reason is why it is not healthy.
	Reason string `json:",omitempty"`
	// Ejections counts them, Refused those that the maximum did not allow.
	Ejections, Refused uint64
	// Passed and Failed count active checks.
	Passed, Failed uint64
}

// Health reports whether the member may be used, and since when.
func (m *Member) Health() (healthy bool, since time.Time) {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return m.healthy(), m.since
}

// healthy: the caller holds group.mu.
func (m *Member) healthy() bool {
	return !m.out && (m.group.settings.Check == nil || m.verdict == passing)
}

// Report notes how the member answered a request: with a status, or 0 when it
// did not answer or could not be reached.
func (m *Member) Report(status int) {
	o := m.group.outlier.Load()
	if o == nil {
		return
	}
	if status != 0 && status < 500 {
		// Read first: a store would take the cache line from all others.
		if m.errors.Load() != 0 {
			m.errors.Store(0)
		}
		if m.gatewayErrors.Load() != 0 {
			m.gatewayErrors.Store(0)
		}
		return
	}
	if n := m.errors.Add(1); o.Consecutive5xx > 0 && n >= o.Consecutive5xx {
		m.group.eject(m, "consecutive 5xx")
		return
	}
	if status != 0 && (status < 502 || status > 504) {
		m.gatewayErrors.Store(0)
		return
	}
	if n := m.gatewayErrors.Add(1); o.ConsecutiveGatewayErrors > 0 && n >= o.ConsecutiveGatewayErrors {
		m.group.eject(m, "consecutive gateway errors")
	}
}

// startCheck begins to check a member, if it is to be checked. The caller holds
// g.mu.
func (g *Group) startCheck(m *Member) {
	check := g.settings.Check
	if check == nil {
		m.verdict = unknown
		if !m.out {
			m.reason = ""
		}
		return
	}
	m.streak = 0
	var ctx context.Context
	ctx, m.check = context.WithCancel(g.registry.ctx)
	g.registry.run(ctx, func(ctx context.Context) { m.keepChecking(ctx, check) })
}

func (m *Member) stopCheck() {
	if m.check != nil {
		m.check()
		m.check = nil
	}
}

func (m *Member) keepChecking(ctx context.Context, check *Check) {
	for {
		limited, cancel := context.WithTimeout(ctx, check.Timeout)
		err := check.Question.Ask(limited, m.address)
		cancel()
		m.group.checked(ctx, m, check, err)
		wait := time.NewTimer(check.pause())
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// checked notes the result of a check.
func (g *Group) checked(ctx context.Context, m *Member, check *Check, err error) {
	g.mu.Lock()
	if ctx.Err() != nil { // under the lock: no result is noted after stopCheck
		g.mu.Unlock()
		return
	}
	before := m.healthy()
	turned := m.judge(check, err)
	if m.healthy() && !before {
		m.since = time.Now()
	}
	g.mu.Unlock()
	if !turned {
		return
	}
	log := g.registry.cfg.Logger.With("service", g.service, "endpoint", m.address)
	if err == nil {
		log.Info("endpoint healthy")
	} else {
		log.Warn("endpoint unhealthy", "error", err)
	}
	g.tell()
}

// judge counts a check and reports whether the verdict turned.
func (m *Member) judge(check *Check, err error) bool {
	now, needed := passing, check.Healthy
	if err == nil {
		m.passed++
	} else {
		m.failed++
		now, needed = failing, check.Unhealthy
	}
	if m.verdict == now {
		m.streak = 0
		return false
	}
	if m.streak++; m.verdict != unknown && m.streak < needed {
		return false
	}
	m.verdict, m.streak, m.reason = now, 0, ""
	if err != nil {
		m.reason = err.Error()
	}
	return true
}
