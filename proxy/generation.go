package proxy

import (
	"sync/atomic"

	"github.com/weirmesh/weir/proxy/router"
)

// generation is a configuration that is served.
//
// # Life
//
// Each request holds the generation it began with, the proxy holds the current
// one, and a generation holds the one after it. So generations end in order,
// and what a swap took out of use is released when the generation before the
// swap ends: no request that could still reach it is left then.
type generation struct {
	table    *router.Table[*rule]
	revision uint64

	refs atomic.Int64
	// next and drops are set by the swap that replaced this generation.
	next  *generation
	drops []func()
}

func newGeneration(t *router.Table[*rule], revision uint64) *generation {
	if t == nil {
		t = new(router.Table[*rule])
	}
	g := &generation{table: t, revision: revision}
	g.refs.Store(1) // the proxy's
	return g
}

// acquire returns the current generation, held until release.
func (p *Proxy) acquire() *generation {
	for {
		g := p.current.Load()
		g.refs.Add(1)
		if p.current.Load() == g {
			return g // it was current after we held it, so it had not ended
		}
		g.release()
	}
}

// ended is far below zero, so that a late acquire, which takes its hold back at
// once, cannot end a generation a second time.
const ended = -1 << 40

func (g *generation) release() {
	if g.refs.Add(-1) != 0 || !g.refs.CompareAndSwap(0, ended) {
		return
	}
	for _, drop := range g.drops {
		drop()
	}
	if g.next != nil {
		g.next.release()
	}
}

// swapped is a compiled configuration and what it no longer uses.
type swapped struct {
	next  *generation
	drops []func()
}

// swap puts a generation into force.
func (p *Proxy) swap(s swapped) {
	old := p.current.Load()
	s.next.refs.Add(1) // the old one's hold
	old.next, old.drops = s.next, s.drops
	p.current.Store(s.next)
	old.release()
}

// retireAll ends the current generation and releases what it uses.
func (p *Proxy) retireAll() {
	g := p.current.Load()
	empty := newGeneration(nil, g.revision)
	var drops []func()
	for r := range g.table.All() {
		drops = append(drops, r.Value.release)
	}
	p.swap(swapped{empty, drops})
}
