package service

import "sync/atomic"

// Limits of a service.
type Limits struct {
	// MaxConnections is per endpoint; 0: any number. It stands in the keys of
	// the endpoints, too.
	MaxConnections int
	// MaxPending is how many requests may wait for one of them.
	MaxPending int64
	// MaxRequests under way; 0: any number.
	MaxRequests int64
	// MaxRetries under way; below 0: what the budget allows.
	MaxRetries int64
	// Retries under way may be BudgetPercent of all requests under way, and
	// MinRetries in any case.
	BudgetPercent, MinRetries int64
}

// Usage is what a service is asked at the moment, by whatever generation.
type Usage struct {
	name     string
	refs     int // under Registry.mu
	waiting  atomic.Int64
	requests atomic.Int64 // counted only where they are limited
	retries  atomic.Int64

	retried, hedged, hedgesWon                      atomic.Uint64
	requestsRefused, retriesRefused, pendingRefused atomic.Uint64
}

// Counts of a service.
type Counts struct {
	Service string
	// Pending, Requests and Retries are under way; Requests only where they
	// are limited.
	Pending, Requests, Retries int64
	// Retried counts retries, Hedged hedges and HedgesWon those of them that were
	// answered first; the others what a limit turned away.
	Retried, Hedged, HedgesWon                      uint64
	RefusedPending, RefusedRequests, RefusedRetries uint64
}

func (r *Registry) acquire(name string) *Usage {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.services[name]
	if u == nil {
		u = &Usage{name: name}
		r.services[name] = u
	}
	u.refs++
	return u
}

func (r *Registry) release(u *Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u.refs--; u.refs == 0 {
		delete(r.services, u.name)
	}
}

// Permits are what one request holds of a service. The zero value holds nothing.
type Permits struct {
	usage          *Usage
	request, retry bool
}

// Begin asks to send a request, and reports whether it may be sent.
func (p *Permits) Begin(b *Backend) bool {
	p.usage = b.usage
	most := b.cfg.Limits.MaxRequests
	if most == 0 {
		return true
	}
	if b.usage.requests.Add(1) > most {
		b.usage.requests.Add(-1)
		b.usage.requestsRefused.Add(1)
		return false
	}
	p.request = true
	return true
}

// Retry asks to send the request again, and reports whether it may be. One that
// is a retry already is counted once.
func (p *Permits) Retry(b *Backend) bool {
	if !p.again(b) {
		return false
	}
	b.usage.retried.Add(1)
	return true
}

// Hedge is Retry while the request is under way already.
func (p *Permits) Hedge(b *Backend) bool {
	if !p.again(b) {
		return false
	}
	b.usage.hedged.Add(1)
	return true
}

// HedgeWon notes that a hedge was answered first.
func (b *Backend) HedgeWon() { b.usage.hedgesWon.Add(1) }

func (p *Permits) again(b *Backend) bool {
	if p.retry {
		return true
	}
	most := b.retries()
	for {
		n := b.usage.retries.Load()
		if n >= most {
			b.usage.retriesRefused.Add(1)
			return false
		}
		if b.usage.retries.CompareAndSwap(n, n+1) {
			p.retry = true
			return true
		}
	}
}

// End gives back what is held.
func (p *Permits) End() {
	if p.request {
		p.usage.requests.Add(-1)
	}
	if p.retry {
		p.usage.retries.Add(-1)
	}
	*p = Permits{}
}

// retries is how many may be under way.
func (b *Backend) retries() int64 {
	active := int64(0)
	for _, e := range b.view.Load().endpoints {
		active += e.Pool.InFlight()
	}
	l := b.cfg.Limits
	most := max(l.MinRetries, active*l.BudgetPercent/100)
	if l.MaxRetries >= 0 {
		most = min(most, l.MaxRetries)
	}
	return most
}

// Exhausted notes a request that was turned away because too many wait for a
// connection.
func (b *Backend) Exhausted() { b.usage.pendingRefused.Add(1) }

// Counts returns what is counted of each service.
func (r *Registry) Counts() []Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Counts, 0, len(r.services))
	for _, u := range r.services {
		all = append(all, Counts{
			Service: u.name, Pending: u.waiting.Load(), Requests: u.requests.Load(), Retries: u.retries.Load(),
			Retried: u.retried.Load(), Hedged: u.hedged.Load(), HedgesWon: u.hedgesWon.Load(), RefusedPending: u.pendingRefused.Load(), RefusedRequests: u.requestsRefused.Load(),
			RefusedRetries: u.retriesRefused.Load(),
		})
	}
	return all
}
