package nodeapi

import (
	"fmt"
	"sync"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// inbox holds what has come by a stream and is still to be applied, as one change:
// whoever fills it never waits, and it holds no more than what it leads to.
type inbox struct {
	news chan struct{} // holds one when there is something

	mu      sync.Mutex
	waiting *received // nil: nothing
	// changed is what waiting says, by resource, once it is more than one change; nil:
	// a resource is gone.
	changed map[resource.Ref]*weirv1.Resource
}

func newInbox() *inbox { return &inbox{news: make(chan struct{}, 1)} }

// put adds a change to what waits.
func (b *inbox) put(c *received) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.waiting == nil || c.snapshot:
		b.waiting, b.changed = c, nil
	case c.from > b.waiting.revision:
		return fmt.Errorf("take in revision %d, which follows %d: %w", c.revision, c.from, errGap)
	default:
		if b.changed == nil {
			b.changed = map[resource.Ref]*weirv1.Resource{}
			b.note(b.waiting)
		}
		b.note(c)
		b.waiting = &received{snapshot: b.waiting.snapshot, from: b.waiting.from, revision: c.revision, digest: c.digest}
	}
	select {
	case b.news <- struct{}{}:
	default: // whoever takes it finds this, too
	}
	return nil
}

func (b *inbox) note(c *received) {
	for _, ref := range c.deletes {
		b.changed[ref] = nil
	}
	for _, r := range c.puts {
		b.changed[resource.Of(r)] = r
	}
}

// take empties it; nil: there is nothing.
func (b *inbox) take() *received {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, changed := b.waiting, b.changed
	b.waiting, b.changed = nil, nil
	for ref, r := range changed {
		if r == nil {
			c.deletes = append(c.deletes, ref)
		} else {
			c.puts = append(c.puts, r)
		}
	}
	return c
}
