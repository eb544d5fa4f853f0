package wasm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
)

// held begins n exchanges that wait, so that each keeps its VM, and returns what ends
// them.
func held(t *testing.T, p *use, n int) (end func()) {
	t.Helper()
	outcomes := make(chan outcome, n)
	before := p.Status().Calls
	for range n {
		go func() {
			outcomes <- serve([]policy.Policy{p}, message{
				fields: "x-do: request: await 120000 4294967295 the-end; request: wait 1; answer: go"}, message{})
		}()
	}
	eventually(t, func() bool { return p.Status().Calls == before+n })
	return func() {
		p.data.set([]byte("the-end"), nil, 0)
		for range n {
			if o := <-outcomes; o.err != nil {
				t.Error(o.err)
			}
		}
	}
}

// TestATenantsSandboxesAreBounded, all together: beyond that exchanges share, and a
// policy that has none gets its first one all the same. Another tenant has its own.
func TestATenantsSandboxesAreBounded(t *testing.T) {
	f := newFixture(t, Config{VMs: 4, TenantVMs: 6})
	var ends []func()
	var all []*use
	for i := range 4 {
		s := spec("")
		s.Name = fmt.Sprint("p", i)
		p := f.makeWith(s, newGranted(nil))
		all = append(all, p)
		ends = append(ends, held(t, p, 6))
	}
	data := all[0].data
	if n := data.vms.Load(); n < 6 || n > 6+3 {
		t.Errorf("the tenant has %d sandboxes", n)
	}
	for _, p := range all {
		if s := p.Status(); s.VMs < 1 || s.VMs > 4 {
			t.Errorf("%s has %d sandboxes", s.Name, s.VMs)
		}
	}
	other := spec("")
	other.Tenant = "other"
	ends = append(ends, held(t, f.makeWith(other, newGranted(nil)), 4))
	for _, end := range ends {
		end()
	}
}

// TestATenantsMemoryIsBounded: a sandbox that grows takes it from the others of its
// tenant, and gives it back when it ends.
func TestATenantsMemoryIsBounded(t *testing.T) {
	probe := newFixture(t, Config{}).make(spec(""))
	one := probe.data.memory.Load()
	if one == 0 || one != int64(probe.Status().MemoryBytes) {
		t.Fatalf("a sandbox counts %d bytes, and has %d", one, probe.Status().MemoryBytes)
	}

	f := newFixture(t, Config{TenantMemoryBytes: one + one/2})
	p := f.make(spec(""))
	second := spec("")
	second.Name = "second"
	if _, err := f.host.Make(t.Context(), second, nil); err == nil || !strings.Contains(err.Error(), "all the memory that they may have") {
		t.Errorf("a second policy: %v", err)
	}
	if now := p.data.memory.Load(); now != one {
		t.Errorf("%d bytes are counted, want %d", now, one)
	}
	if o := serve([]policy.Policy{p}, message{}, message{}); o.err != nil {
		t.Errorf("the first policy: %v", o.err)
	}
	second.Tenant = "other"
	f.makeWith(second, nil)

	data := p.data
	p.Release()
	eventually(t, func() bool { return data.memory.Load() == 0 && data.vms.Load() == 0 })
}

// TestATenantsLinesAreBounded, too.
func TestATenantsLinesAreBounded(t *testing.T) {
	f := newFixture(t, Config{LogLines: 20, TenantLogLines: 30})
	var dropped uint64
	for i := range 3 {
		s := spec("")
		s.Name = fmt.Sprint("p", i)
		p := f.make(s)
		if o := serve([]policy.Policy{p}, message{fields: "x-do: request: log 2 hello 20"}, message{}); o.err != nil {
			t.Fatal(o.err)
		}
		dropped += p.Status().LinesDropped
	}
	if dropped == 0 {
		t.Errorf("no line of sixty is dropped:\n%s", f.journal)
	}
}
