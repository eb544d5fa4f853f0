package nodeport

import (
	"log/slog"
	"sync"
	"time"
)

const (
	refusalsLogged = 10
	refusalsWindow = time.Minute
)

// refusals log who was refused, and why: the peer itself may never show what it
// was told. Whoever knocks without end does not fill the disk.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex
	since  time.Time
	logged int
	silent int
	// said is what was last said of servers that are refused, by name.
	said map[string]string
}

// isNews tells whether something else was said of a server before.
func (r *refusals) isNews(server, why string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said[server] == why {
		return false
	}
	if r.said == nil || len(r.said) >= maxPeers {
		r.said = map[string]string{}
	}
	r.said[server] = why
	return true
}

func (r *refusals) note(address, protocol string, err error) {
	due, silent := r.count(time.Now())
	if silent > 0 {
		r.log.Warn("more peers were refused", "count", silent)
	}
	if due {
		r.log.Warn("peer refused", "address", address, "over", protocol, "error", err)
	}
}

// count tells whether a refusal is to be logged, and how many were not before.
func (r *refusals) count(now time.Time) (due bool, silent int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= refusalsWindow {
		silent = r.silent
		r.since, r.logged, r.silent = now, 0, 0
	}
	if r.logged >= refusalsLogged {
		r.silent++
		return false, silent
	}
	r.logged++
	return true, silent
}
