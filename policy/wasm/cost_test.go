package wasm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// caller is a plugin that calls one host function with constant arguments when
// it sees a request, and drops what it returns.
func caller(function string, arguments ...int32) []byte {
	m := smallest()
	m.imports, m.imported = []string{"env." + function}, [2]int{len(arguments), 1}
	var code []byte
	for _, a := range arguments {
		code = append(code, 0x41)
		code = append(code, signed(a)...)
	}
	m.code["proxy_on_request_headers"] = append(code, 0x10, 0, 0x1a, 0x41, 0)
	return m.bytes()
}

func signed(n int32) []byte {
	var out []byte
	for {
		low := byte(n & 0x7f)
		n >>= 7
		if n == 0 && low&0x40 == 0 || n == -1 && low&0x40 != 0 {
			return append(out, low)
		}
		out = append(out, low|0x80)
	}
}

// TestWorkOfTheHostIsPaidFor: a call that makes the host copy or look at much
// costs the guest much, also when it fails in the end.
func TestWorkOfTheHostIsPaidFor(t *testing.T) {
	const bad = -16 // the last bytes of a memory that is not that large
	const large = 1 << 16
	for _, test := range []struct {
		name   string
		module []byte
		config string
		fields string
		least  uint64
	}{
		{name: "a head to nowhere", module: caller("proxy_get_header_map_pairs", 0, bad, bad),
			fields: "x-large: " + strings.Repeat("x", large), least: large / 4},
		{name: "a field of a long name", module: caller("proxy_get_header_map_value", 0, 0, 4000, bad, bad),
			fields: strings.Repeat("x-many: 1\n", 1000), least: 4000 * 1000 / 4},
		{name: "a field of a long name to remove", module: caller("proxy_remove_header_map_value", 0, 0, 4000),
			fields: strings.Repeat("x-many: 1\n", 1000), least: 4000 * 1000 / 4},
		{name: "a property of a long name", module: caller("proxy_get_property", 0, large, bad, bad), least: large / 4},
		{name: "a shared value of a long name", module: caller("proxy_get_shared_data", 0, large, bad, bad, 0), least: large / 4},
		{name: "a shared value to nowhere", module: caller("proxy_get_shared_data", 0, 0, bad, bad, 0), least: large / 4},
		{name: "a field among many", module: caller("proxy_get_header_map_value", 0, 0, 0, bad, bad),
			fields: strings.Repeat("x-many: 1\n", 1000), least: 1000},
		{name: "no such field to remove", module: caller("proxy_remove_header_map_value", 0, 0, 0),
			fields: strings.Repeat("x-many: 1\n", 1000), least: 1000},
		{name: "the size of a head", module: caller("proxy_get_header_map_size", 0, bad),
			fields: strings.Repeat("x-many: 1\n", 1000), least: 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, Config{})
			f.modules[digest(test.module)] = test.module
			s := spec(test.config)
			s.Digest = digest(test.module)
			p := f.make(s)
			p.data.set(nil, make([]byte, large), 0)
			if o := serve([]policy.Policy{p}, message{fields: test.fields}, message{}); o.err != nil {
				t.Fatal(o.err)
			}
			if burned := p.Status().Fuel; burned < test.least {
				t.Errorf("it costs %d, which is less than %d", burned, test.least)
			}
		})
	}
}

// TestALongPathIsPaidFor: by whom looks for something in it.
func TestALongPathIsPaidFor(t *testing.T) {
	p := newFixture(t, Config{}).make(spec(""))
	cost := func(path int, property string) uint64 {
		x := newExchange()
		x.Request.Path = []byte("/" + strings.Repeat("x", path))
		x.Request.Fields.Add([]byte("x-do"), []byte("request: property "+property))
		before := p.Status().Fuel
		run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		run.Close()
		return p.Status().Fuel - before
	}
	const large = 1 << 20
	short := cost(0, "request/query")
	for range 5 { // the first times, and when it collects its garbage, it is dearer
		short = min(short, cost(0, "request/query"))
	}
	if long := cost(large, "request/query"); long < short+large/4 {
		t.Errorf("a short one costs %d, a long one %d", short, long)
	}
}

// TestAnEmptyTankPaysForNoCopy: what a guest is to be given is made only when it
// can pay for it.
func TestAnEmptyTankPaysForNoCopy(t *testing.T) {
	const large = 100_000
	for name, module := range map[string][]byte{
		"shared value": caller("proxy_get_shared_data", 0, 0, 0, 0, 0),
		"head":         caller("proxy_get_header_map_pairs", 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Config{})
			f.modules[digest(module)] = module
			s := spec("")
			s.Digest, s.Fuel = digest(module), 2000
			p := f.make(s)
			p.data.set(nil, make([]byte, large), 0)
			v := p.pool.vms[0]
			o := serve([]policy.Policy{p}, message{fields: "x-large: " + strings.Repeat("x", large)}, message{})
			var trap *Trap
			if !errors.As(o.err, &trap) || !trap.OutOfFuel {
				t.Fatalf("it is not out of fuel: %v", o.err)
			}
			if cap(v.scratch) >= large {
				t.Errorf("%d bytes were copied", cap(v.scratch))
			}
			if status := p.data.set([]byte("free"), nil, 0); status != abi.OK { // its lock is not held
				t.Error(status)
			}
		})
	}
}

// TestTheStartOfAVMIsNoExchanges: which one happens to need it is chance.
func TestTheStartOfAVMIsNoExchanges(t *testing.T) {
	m := smallest()
	m.imports, m.imported = []string{"env.proxy_get_log_level"}, [2]int{1, 1}
	m.exports = append(m.exports, "proxy_on_configure")
	m.types["proxy_on_configure"] = [2]int{2, 1}
	m.code["proxy_on_configure"] = []byte{0x41, 0, 0x10, 0, 0x1a, 0x41, 1}
	module := m.bytes()
	f := newFixture(t, Config{})
	f.modules[digest(module)] = module
	s := spec("")
	s.Digest = digest(module)
	p := f.make(s)
	c := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	start := p.Status().Fuel
	one, other := begin(t, c, message{}), begin(t, c, message{}) // in a VM of its own
	one.mustEnd()
	other.mustEnd()
	status := p.Status()
	if status.VMs != 2 || start < fuelPerCall {
		t.Fatalf("a start costs %d: %+v", start, status)
	}
	if exchanges := status.Fuel - 2*start; exchanges != 2*status.DearestExchange {
		t.Errorf("two exchanges cost %d, the dearest of them %d", exchanges, status.DearestExchange)
	}
}

// TestSharedDataKeepsNoMoreThanItCounts: a large value that is replaced by a
// small one is given up.
func TestSharedDataKeepsNoMoreThanItCounts(t *testing.T) {
	d := &tenantData{limits: tenantLimits{shared: 1 << 20}, values: map[string]*sharedValue{}}
	large := bytes.Repeat([]byte("x"), 1<<19)
	kept := 0
	for _, key := range []string{"a", "b", "c", "d"} {
		d.set([]byte(key), large, 0)
		d.set([]byte(key), []byte("small"), 0)
		kept += cap(d.values[key].data)
	}
	if kept > d.limits.shared {
		t.Errorf("%d bytes are kept for %d that are counted", kept, d.bytes)
	}
}
