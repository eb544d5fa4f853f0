package wasm

import (
	"sync"
	"testing"
)

// TestABurstMakesNoMoreVMsThanTheLimit: also when none is there to be shared yet,
// as after the start of a plugin that ticks.
func TestABurstMakesNoMoreVMsThanTheLimit(t *testing.T) {
	f := newFixture(t, Config{VMs: 2})
	p := f.make(spec(`"tick"`)) // its first VM serves no exchange
	var all sync.WaitGroup
	taken := make([]*vm, 40)
	for i := range taken {
		all.Go(func() {
			v, err := p.pool.take()
			if err != nil {
				t.Error(err)
			}
			taken[i] = v
		})
	}
	all.Wait()
	if n, _ := p.pool.count(); n > 2 {
		t.Errorf("%d VMs were made", n)
	}
	for _, v := range taken {
		p.pool.put(v)
	}
}
