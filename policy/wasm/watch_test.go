package wasm

import (
	"fmt"
	"testing"

	"github.com/weirmesh/weir/policy"
)

// TestWaitingForAnother: exchanges in as many sandboxes as there are wait for one value,
// and go on when it is stored, by whomever.
func TestWaitingForAnother(t *testing.T) {
	f := newFixture(t, Config{VMs: 4})
	p := f.makeWith(spec(""), newGranted(nil))
	const many = 32
	outcomes := make(chan outcome, many)
	for range many {
		go func() {
			outcomes <- serve([]policy.Policy{p}, message{
				fields: "x-do: request: await 60000 4294967295 news; request: wait 1; answer: take; answer: go"}, message{})
		}()
	}
	eventually(t, func() bool {
		p.data.mu.RLock()
		defer p.data.mu.RUnlock()
		return len(p.data.watchers["news"]) == many
	})
	if got := p.Status().Calls; got != many {
		t.Errorf("%d calls are in flight, want %d", got, many)
	}
	p.data.set([]byte("other"), []byte("v"), 0)
	p.data.set([]byte("news"), []byte("v"), 0)
	for range many {
		o := <-outcomes
		if got, want := value(o.request, "x-take"), "http 1,0,0 204 up= body= trailer= code=0"; got != want || o.err != nil {
			t.Errorf("x-take is %q, want %q: %v", got, want, o.err)
		}
	}
	eventually(t, func() bool { return p.Status().Calls == 0 })
	p.data.mu.RLock()
	defer p.data.mu.RUnlock()
	if len(p.data.watchers) != 0 {
		t.Errorf("watchers are left: %v", p.data.watchers)
	}
}

// TestWaitingIsBounded as calls are: who waits for nothing can be made to wait is
// refused, and what an exchange waits for ends with it.
func TestWaitingIsBounded(t *testing.T) {
	f := newFixture(t, Config{Calls: 2})
	p := f.makeWith(spec(""), newGranted(nil))
	o := serve([]policy.Policy{p}, message{fields: "x-do: request: await 60000 4294967295 a; request: await 60000 4294967295 b; " +
		"request: await 60000 4294967295 c"}, message{})
	if got := value(o.request, "x-await"); got != fmt.Sprintf("await %d", 10) {
		t.Errorf("a third wait is answered %q: %v", got, o.err)
	}
	p.data.set([]byte("a"), nil, 0)
	p.data.set([]byte("b"), nil, 0)
	eventually(t, func() bool { return p.Status().Calls == 0 })
}
