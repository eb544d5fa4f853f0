package wasm

import (
	"errors"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
)

func TestCapsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		caps Caps
		want string
	}{
		{nil, ""},
		{Caps{"tenant-memory": 64 << 20, "max-fuel": 50_000_000, "vms": 4}, ""},
		{Caps{"memroy": 1 << 20}, `no limit of plugins is called "memroy"; there are call-bytes, calls, fuel, `},
		{Caps{"vms": 0}, "the limit vms of plugins must be from 1 to 10000, not 0"},
		{Caps{"memory": 1 << 40}, "the limit memory of plugins must be from 1048576 to 268435456, not 1099511627776"},
	} {
		err := test.caps.Validate()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: %v, not %q", test.caps, err, test.want)
		}
	}
}

// Each cap is in force under its name.
func TestCapsAreInForce(t *testing.T) {
	c := Config{}.WithCaps(Caps{
		"memory": 2 << 20, "tenant-memory": 3 << 20, "fuel": 40_000, "max-fuel": 50_000, "vms": 6, "tenant-vms": 7, "tenant-shared": 8, "tenant-queues": 9,
		"log-lines": 10, "tenant-log-lines": 11, "calls": 12, "tenant-calls": 13, "call-bytes": 14,
	})
	if c.MemoryBytes != 2<<20 || c.TenantMemoryBytes != 3<<20 || c.Fuel != 40_000 || c.MaxFuel != 50_000 || c.VMs != 6 || c.TenantVMs != 7 || c.SharedBytes != 8 ||
		c.QueueBytes != 9 || c.LogLines != 10 || c.TenantLogLines != 11 || c.Calls != 12 || c.TenantCalls != 13 || c.CallBytes != 14 {
		t.Errorf("got %+v", c)
	}
}

// A policy that states more fuel than there may be has as much as there may be.
func TestFuelThatIsStatedIsBounded(t *testing.T) {
	f := newFixture(t, Config{}.WithCaps(Caps{"max-fuel": 1_000_000}))
	s := spec("")
	s.Fuel = 1_000_000_000
	p := f.makeWith(s, nil)
	o := serve([]policy.Policy{p}, do("request: spin"), message{})
	if !errors.Is(o.err, policy.ErrOutOfFuel) {
		t.Fatalf("a loop ends with %v", o.err)
	}
	if burned := p.Status().DearestExchange; burned > 2_000_000 {
		t.Errorf("it has burned %d", burned)
	}
}
