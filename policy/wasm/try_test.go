package wasm

import (
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// TestTry: a configuration is tried as a proxy would, and nothing of it is left.
func TestTry(t *testing.T) {
	f := newFixture(t, Config{})
	wrong, err := f.host.Try(t.Context(), guest, []policy.Spec{spec(`"hello"`), spec(`"refuse it is no good"`), spec(`"spin"`), spec("")})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"", "it refuses its configuration; it logged:\n\tthe configuration is wrong: it is no good", "ran out of fuel", ""} {
		if want == "" && wrong[i] != nil || want != "" && (wrong[i] == nil || !strings.Contains(wrong[i].Error(), want)) {
			t.Errorf("configuration %d: %v, want %q", i, wrong[i], want)
		}
	}
	if n := len(f.host.Status()); n != 0 {
		t.Errorf("%d policies are left", n)
	}
	if n := len(f.host.shared.tenants); n != 0 {
		t.Errorf("shared data of %d tenants is left", n)
	}
	none := spec("")
	none.Digest = digest([]byte("no module"))
	if _, err := f.host.Try(t.Context(), []byte("no module"), []policy.Spec{none}); err == nil || !strings.Contains(err.Error(), "not a WASM module") {
		t.Errorf("no module: %v", err)
	}
	if wrong, err := f.host.Try(t.Context(), nil, nil); err != nil || wrong != nil {
		t.Errorf("nothing to try: %v, %v", wrong, err)
	}
}

// TestTheSchemaOfAConfiguration is asked for when a module is admitted, and at no
// other time.
func TestTheSchemaOfAConfiguration(t *testing.T) {
	teller := func(schema string) []byte {
		const name = "weir.schema"
		m := smallest()
		m.imports, m.imported = []string{"env.proxy_call_foreign_function"}, [2]int{6, 1}
		m.exports = append(m.exports, "weir_config_schema")
		m.types["weir_config_schema"] = [2]int{0, 0}
		var code []byte
		for i, c := range []byte(name + schema) { // memory[i] = c
			code = append(append(append(code, 0x41), signed(int32(i))...), 0x41)
			code = append(append(code, signed(int32(c))...), 0x3a, 0, 0)
		}
		for _, n := range []int32{0, int32(len(name)), int32(len(name)), int32(len(schema)), 1000, 1004} {
			code = append(append(code, 0x41), signed(n)...)
		}
		m.code["weir_config_schema"] = append(code, 0x10, 0, 0x1a)
		return m.bytes()
	}
	host := newFixture(t, Config{}).host
	info, err := host.Admit(t.Context(), "p", teller(`{"type":"object"}`), Limits{})
	if err != nil || string(info.Schema) != `{"type":"object"}` {
		t.Errorf("%s, %v", info.Schema, err)
	}
	if _, err := host.Admit(t.Context(), "p", teller(`{"type`), Limits{}); err == nil || !strings.Contains(err.Error(), "is not JSON") {
		t.Errorf("what is no JSON: %v", err)
	}
	if info, err := host.Admit(t.Context(), "p", smallest().bytes(), Limits{}); err != nil || info.Schema != nil {
		t.Errorf("a module that tells nothing: %s, %v", info.Schema, err)
	}
	c := newForeignCaller(t, Config{}, 0)
	c.v.stage = stageRequestHead
	if _, status, _ := c.call("weir.schema", []byte("{}")); status == 0 || c.v.schema != nil {
		t.Error("it is kept while a request is served")
	}
	c.v.stage = stageIdle
}

// TestWhatIsTriedMeasuresForItself: what one module calls a counter may be another's gauge.
func TestWhatIsTriedMeasuresForItself(t *testing.T) {
	f := newFixture(t, Config{})
	m, err := f.host.acquire(t.Context(), moduleKey{digest: digest(guest), pages: 256}, these(guest))
	if err != nil {
		t.Fatal(err)
	}
	defer m.release()
	err = f.host.withVM(m, spec(""), func(a *vm) error {
		return f.host.withVM(m, spec(""), func(b *vm) error {
			if a.policy.meters.define(abi.Counter, "hits") == 0 || b.policy.meters.define(abi.Gauge, "hits") == 0 {
				t.Error("two that are looked at have their metrics in common")
			}
			return nil
		})
	})
	if n := len(f.host.meters.policies); err != nil || n != 0 {
		t.Errorf("%v, metrics of %d policies", err, n)
	}
}
