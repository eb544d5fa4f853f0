package health

import (
	"context"
	"time"
)

// eject takes a member out of use for a while, if that many may be out.
func (g *Group) eject(m *Member, reason string) {
	g.mu.Lock()
	o := g.settings.Outlier
	m.errors.Store(0)
	m.gatewayErrors.Store(0)
	if o == nil || m.out || m.refs == 0 {
		g.mu.Unlock()
		return
	}
	if g.ejected >= o.allowed(len(g.members)) {
		m.refusedTotal++
		g.mu.Unlock()
		return
	}
	g.ejected++
	m.out = true
	m.ejections++
	m.ejectionsTotal++
	m.reason = reason
	span := o.duration(m.ejections)
	m.until = time.Now().Add(span)
	g.mu.Unlock()
	g.registry.cfg.Logger.Warn("endpoint ejected", "service", g.service, "endpoint", m.address, "reason", reason, "for", span)
	select {
	case g.wake <- struct{}{}:
	default:
	}
	g.tell()
}

// keep lets members return when their time has come, and forgives past
// ejections.
func (g *Group) keep(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, returned := g.review(time.Now())
		for _, m := range returned {
			g.registry.cfg.Logger.Info("endpoint returned", "service", g.service, "endpoint", m.address)
		}
		if len(returned) > 0 {
			g.tell()
		}
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		case <-due:
		}
	}
}

// review does what is due by now and returns when there is more to do; zero:
// nothing.
func (g *Group) review(now time.Time) (next time.Time, returned []*Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.settings.Outlier
	if o == nil {
		return next, nil
	}
	for _, m := range g.members {
		if m.ejections == 0 {
			continue
		}
		if !m.until.After(now) {
			if m.out {
				m.out, m.reason, m.since = false, "", now
				g.ejected--
				returned = append(returned, m)
			} else {
				m.ejections--
			}
			m.until = now.Add(o.Interval)
		}
		if m.ejections > 0 && (next.IsZero() || m.until.Before(next)) {
			next = m.until
		}
	}
	return next, returned
}
