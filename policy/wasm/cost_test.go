package wasm

import (
	"bytes"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
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

// TestSharedDataKeepsNoMoreThanItCounts: a large value that is replaced by a
// small one is given up.
func TestSharedDataKeepsNoMoreThanItCounts(t *testing.T) {
	d := &tenantData{limit: 1 << 20, values: map[string]*sharedValue{}}
	large := bytes.Repeat([]byte("x"), 1<<19)
	kept := 0
	for _, key := range []string{"a", "b", "c", "d"} {
		d.set([]byte(key), large, 0)
		d.set([]byte(key), []byte("small"), 0)
		kept += cap(d.values[key].data)
	}
	if kept > d.limit {
		t.Errorf("%d bytes are kept for %d that are counted", kept, d.bytes)
	}
}
