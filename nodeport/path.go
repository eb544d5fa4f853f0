package nodeport

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxPaths are remembered; above that those that say nothing are forgotten.
	maxPaths    = 256
	retryUDPMax = 5 * time.Minute
	// secondLook is how long after a quick failure UDP is tried once more before
	// it counts as blocked: a server that starts may be early on TCP.
	secondLook = time.Second
)

// path is what is known of the way to one address. While there are connections
// over TCP a goroutine looks whether UDP works.
type path struct {
	dialer  *Dialer
	address string

	mu       sync.Mutex
	blocked  bool          // UDP is, as far as is known
	again    time.Time     // when it is worth another try
	wait     time.Duration // before the next one
	users    int           // connections over TCP
	watching bool
	returned chan struct{} // closed when UDP works; nil while nobody waits
	left     chan struct{} // says that there may be no user any more
}

func (d *Dialer) path(address string) *path {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.paths[address]
	if p == nil {
		d.forgetPaths()
		p = &path{dialer: d, address: address, left: make(chan struct{}, 1)}
		d.paths[address] = p
	}
	return p
}

func (d *Dialer) forgetPaths() {
	if len(d.paths) < maxPaths {
		return
	}
	for address, p := range d.paths {
		p.mu.Lock()
		idle := !p.watching && p.users == 0
		p.mu.Unlock()
		if idle {
			delete(d.paths, address)
		}
	}
}

// avoidsUDP tells whether TCP comes first.
func (p *path) avoidsUDP(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked && (p.watching || now.Before(p.again))
}

// works notes that QUIC got through.
func (p *path) works() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocked {
		p.dialer.cfg.Logger.Info("UDP to " + p.address + " answers again, using QUIC")
	}
	p.blocked, p.wait = false, 0
	if p.returned != nil {
		close(p.returned)
		p.returned = nil
	}
}

// enter notes a connection over TCP. The attempt, if any, is still under way or
// has failed; it decides whether UDP is blocked. The channel is closed when UDP
// is found to work.
func (p *path) enter(a *attempt, s speech) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
	if p.returned == nil {
		p.returned = make(chan struct{})
	}
	if p.watching {
		if a != nil {
			a.abandon()
		}
	} else {
		p.watching = p.dialer.gate.run(func() { p.watch(a, s) })
	}
	return p.returned
}

func (p *path) leave() {
	p.mu.Lock()
	p.users--
	p.mu.Unlock()
	select {
	case p.left <- struct{}{}:
	default:
	}
}

// watch tries UDP until it works, nobody is left who cares, or the dialer ends.
func (p *path) watch(a *attempt, s speech) {
	looked := false
	if a == nil {
		p.pause(p.untilAgain())
	}
	for p.cares() {
		if a == nil {
			a = p.dialer.try(p.address, s)
		}
		begun := time.Now()
		select {
		case <-a.finished:
		case <-p.dialer.life.Done():
			a.abandon()
			continue
		}
		conn, err := a.result()
		switch quick := time.Since(begun) < secondLook; {
		case err == nil:
			_ = conn.CloseWithError(codeGoingAway, "")
			p.stopWatching()
			p.works()
			return
		case quick && !looked && !answered(err) && !p.isBlocked():
			looked = true
			p.pause(secondLook)
		default:
			p.pause(p.failed(a, err))
		}
		a = nil
	}
	if a != nil {
		a.abandon()
	}
}

// cares ends the watch, in one step with finding that it has no purpose.
func (p *path) cares() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watching = p.users > 0 && p.dialer.life.Err() == nil
	return p.watching
}

func (p *path) stopWatching() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watching = false
}

func (p *path) untilAgain() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.again)
}

func (p *path) isBlocked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked
}

// failed draws the conclusion from a QUIC that failed where TCP did not, and
// returns when to try again.
func (p *path) failed(a *attempt, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	silent := !answered(err) && !a.heard() || isRefused(err)
	if silent && !p.blocked {
		p.blocked = true
		p.dialer.cfg.Logger.Warn("UDP to "+p.address+" does not answer, using TCP", "error", err)
	}
	p.wait = min(max(2*p.wait, p.dialer.cfg.RetryUDP), retryUDPMax)
	wait := p.wait - p.wait/5 + rand.N(2*p.wait/5+1)
	p.again = time.Now().Add(wait)
	return wait
}

// pause waits, unless everybody leaves.
func (p *path) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return
		case <-p.dialer.life.Done():
			return
		case <-p.left:
			p.mu.Lock()
			users := p.users
			p.mu.Unlock()
			if users == 0 {
				return
			}
		}
	}
}
