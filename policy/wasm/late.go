package wasm

import (
	"slices"
	"time"
)

// A push has its module looked at three times within a second or two: it is admitted,
// tried under the configurations of its policies, and, where the process has a proxy,
// made policies of. What Admit and Try have compiled is kept for as long as that takes,
// of the modules that were looked at last.
const (
	keptLate = 30 * time.Second
	mostLate = 2
)

// late is a module that is kept without being used. It holds a reference, which
// whoever takes it off Host.late gives back.
type late struct {
	module *module
	timer  *time.Timer
}

// linger gives a reference back later: after a while, or when others have come.
func (h *Host) linger(m *module) {
	h.mu.Lock()
	if i := slices.IndexFunc(h.late, func(l *late) bool { return l.module == m }); i >= 0 || h.closed {
		if i >= 0 { // it is the newest again
			l := h.late[i]
			h.late = append(slices.Delete(h.late, i, i+1), l)
			l.timer.Reset(keptLate)
		}
		h.mu.Unlock()
		m.release()
		return
	}
	l := &late{module: m}
	h.lingering.Add(1)
	l.timer = time.AfterFunc(keptLate, func() { h.forget(l) })
	h.late = append(h.late, l)
	var first *late
	if len(h.late) > mostLate {
		first = h.late[0]
	}
	h.mu.Unlock()
	if first != nil {
		h.forget(first)
	}
}

// forget ends the keeping of a module, once.
func (h *Host) forget(l *late) {
	h.mu.Lock()
	i := slices.Index(h.late, l)
	if i >= 0 {
		h.late = slices.Delete(h.late, i, i+1)
	}
	h.mu.Unlock()
	if i >= 0 {
		l.timer.Stop()
		l.module.release()
		h.lingering.Done()
	}
}

// forgetAll is for a host that is closed: nothing is kept any more when it returns.
func (h *Host) forgetAll() {
	h.mu.Lock()
	all := slices.Clone(h.late)
	h.mu.Unlock()
	for _, l := range all {
		h.forget(l)
	}
	h.lingering.Wait() // for those whose time came just now
}
