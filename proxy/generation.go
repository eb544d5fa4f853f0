package proxy

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/router"
)

// generation is a configuration that is served.
//
// # Life
//
// Each request holds the generation it began with, and the proxy holds the
// current one. What a swap takes out of use was in use from one generation to
// another: it is released when the last of these ends. So a request that lasts
// for hours keeps what it may still reach, and nothing that came and went since.
type generation struct {
	table   *router.Table[*rule]
	sockets map[bindKey]*secureSocket // those that speak TLS; nil: none
	doors   map[bindKey]*listener.Admission
	// challenges of ACME authorities; nil: none.
	challenges *challenges
	clash      error // listeners that are not served; the rest is
	revision   uint64
	seq        uint64 // counts swaps

	refs  atomic.Int64
	proxy *Proxy
	drops []drop // what may go when this generation has ended; under proxy.lives
}

// drop is something that is in use by generations from since on, up to the one
// that it hangs on.
type drop struct {
	since uint64
	give  func()
}

func (p *Proxy) newGeneration(t *router.Table[*rule], revision, seq uint64) *generation {
	if t == nil {
		t = new(router.Table[*rule])
	}
	g := &generation{table: t, revision: revision, seq: seq, proxy: p}
	g.refs.Store(1) // the proxy's
	return g
}

// generations are those that have not ended, the oldest first.
type generations struct {
	mu   sync.Mutex
	list []*generation
}

// end takes a generation off the list and returns what can go with it. The rest
// hangs on the one before, which may still reach it.
func (l *generations) end(g *generation) (free []drop) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.list, g)
	l.list = slices.Delete(l.list, i, i+1)
	for _, d := range g.drops {
		if i > 0 && l.list[i-1].seq >= d.since {
			l.list[i-1].drops = append(l.list[i-1].drops, d)
		} else {
			free = append(free, d)
		}
	}
	g.drops = nil
	return free
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
	for _, d := range g.proxy.lives.end(g) {
		d.give()
	}
}

// swapped is a compiled configuration and what it no longer uses.
type swapped struct {
	next  *generation
	drops []drop
	clash error // listeners that are not served; the rest is
}

// swap puts a generation into force.
func (p *Proxy) swap(s swapped) {
	old := p.current.Load()
	p.lives.mu.Lock()
	p.lives.list = append(p.lives.list, s.next)
	old.drops = append(old.drops, s.drops...)
	p.lives.mu.Unlock()
	p.current.Store(s.next)
	old.release()
}

// retireAll ends the current generation and releases what it uses.
func (p *Proxy) retireAll() {
	g := p.current.Load()
	empty := p.newGeneration(nil, g.revision, g.seq+1)
	var drops []drop
	for r := range g.table.All() {
		drops = append(drops, drop{r.Value.since, r.Value.release})
	}
	p.swap(swapped{next: empty, drops: drops})
}
