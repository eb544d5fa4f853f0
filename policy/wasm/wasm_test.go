package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/fuel"
)

func TestHeaderPolicy(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	o := serve([]policy.Policy{p}, message{fields: "x-in: hello"}, message{})
	if o.err != nil {
		t.Fatal(o.err)
	}
	if value(o.request, "x-out") != "hello" || value(o.response, "x-stamped") != "yes" {
		t.Errorf("request %s\nresponse %s", o.request, o.response)
	}
}

func TestARefusedConfigurationSaysWhy(t *testing.T) {
	f := newFixture(t, Config{})
	for config, want := range map[string]string{
		`"refuse me"`: "make policy t/stamp of plugin guest: configure plugin: it refuses its configuration; it logged:\n\tthe configuration is wrong: me",
		`"panic"`:     "panic: no configuration, no plugin",
		`"spin"`:      "proxy_on_configure ran out of fuel",
		`"eat"`:       "fatal error: out of memory",
	} {
		_, err := f.host.Make(context.Background(), spec(config), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", config, err)
		}
	}
	if len(f.host.modules) != 0 || len(f.host.policies) != 0 {
		t.Errorf("%d modules and %d policies are left", len(f.host.modules), len(f.host.policies))
	}
}

func TestAdmit(t *testing.T) {
	f := newFixture(t, Config{})
	with := func(change func(*rawModule)) []byte {
		m := smallest()
		change(&m)
		return m.bytes()
	}
	_, about, err := fuel.Rewrite(guest, fuel.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	// Enough for the module, not for its runtime.
	tight := Limits{MemoryBytes: uint64(about.MinPages+1) * fuel.PageSize}
	for _, test := range []struct {
		name   string
		module []byte
		limits Limits
		want   string // part of the error
	}{
		{name: "the smallest plugin", module: smallest().bytes()},
		{name: "stock Go", module: guest},
		{name: "an older version", module: with(func(m *rawModule) { m.exports[0] = "proxy_abi_version_0_1_0" })},
		{name: "Higress's version", module: with(func(m *rawModule) { m.exports[0] = "proxy_abi_version_0_2_100" })},
		{name: "malloc", module: with(func(m *rawModule) {
			m.exports[1] = "malloc"
			m.types["malloc"], m.code["malloc"] = [2]int{1, 1}, []byte{0x41, 0}
		})},
		{name: "host functions under both names of the system interface", module: with(func(m *rawModule) {
			m.imports, m.imported = []string{"wasi_unstable.fd_close", "wasi_snapshot_preview1.fd_close"}, [2]int{1, 1}
		})},
		{name: "no module", module: []byte("hello"), want: "admit module: read module: not a WASM module"},
		{name: "a component", module: []byte("\x00asm\x0d\x00\x01\x00"), want: "this is a component (WASI 0.2)"},
		{name: "no plugin", module: with(func(m *rawModule) { m.exports = m.exports[1:] }), want: "it is no proxy-wasm plugin"},
		{name: "a version that is not known", module: with(func(m *rawModule) { m.exports[0] = "proxy_abi_version_0_3_0" }),
			want: "it speaks proxy_abi_version_0_3_0: proxy-wasm 0.1.0, 0.2.0 and 0.2.1 are served"},
		{name: "no memory", module: with(func(m *rawModule) { m.pages = 0 }), want: "it has no memory"},
		{name: "no allocator", module: with(func(m *rawModule) { m.exports[1] = "free" }),
			want: "it exports neither proxy_on_memory_allocate nor malloc"},
		{name: "no callback", module: with(func(m *rawModule) { m.exports = m.exports[:2] }), want: "it exports no callback"},
		{name: "unknown imports", module: with(func(m *rawModule) { m.imports = []string{"env.proxy_new_invention", "net.dial"} }),
			want: "it imports what this host does not have: env.proxy_new_invention, net.dial"},
		{name: "an import of another type", module: with(func(m *rawModule) { m.imports, m.imported = []string{"env.proxy_log"}, [2]int{1, 1} }),
			want: "it imports env.proxy_log as (i32) → (i32), which is (i32, i32, i32) → (i32)"},
		{name: "an export of another type", module: with(func(m *rawModule) { m.types["proxy_on_request_headers"] = [2]int{4, 1} }),
			want: "it exports proxy_on_request_headers as (i32, i32, i32, i32) → (i32)"},
		{name: "more memory than its limit", module: with(func(m *rawModule) { m.pages = 3 }), limits: Limits{MemoryBytes: 128 << 10},
			want: "its memory needs 3 pages of 64 KiB: at most 2 are allowed"},
		{name: "too little to start with", module: guest, limits: tight, want: "fatal error:"},
		{name: "a limit beyond the host's", module: guest, limits: Limits{MemoryBytes: 1 << 40}, want: "a memory limit of 1099511627776 bytes"},
		{name: "a start that does not end", module: with(func(m *rawModule) { m.start = []byte{0x03, 0x40, 0x0c, 0, end} }), want: "unreachable"},
		{name: "code that is not valid", module: with(func(m *rawModule) { m.code["proxy_on_request_headers"] = nil }), want: "compile module: invalid function"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if raceDetector && test.limits == tight {
				t.Skip("compiles stock Go once more")
			}
			info, err := f.host.Admit(context.Background(), "", test.module, test.limits)
			if test.want == "" {
				if err != nil || info.ABI == "" || info.Digest != digest(test.module) || info.Size != len(test.module) || info.MinMemory == 0 {
					t.Errorf("%v, %+v", err, info)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := newFixture(t, Config{ModuleBytes: 100}).host.Admit(context.Background(), "", guest, Limits{}); err == nil ||
		!strings.Contains(err.Error(), "at most 100 are allowed") {
		t.Errorf("too large a module: %v", err)
	}
}

func TestEqualSpecsGiveOnePolicy(t *testing.T) {
	f := newFixture(t, Config{})
	var all sync.WaitGroup
	made := make([]*use, 4)
	for i := range made {
		all.Go(func() { made[i] = f.make(spec("")) })
	}
	all.Wait()
	for _, p := range made {
		if p.Policy != made[0].Policy {
			t.Error("two policies of one spec")
		}
	}
	if other := f.make(spec(`"x"`)); other.Policy == made[0].Policy {
		t.Error("one policy of two specs")
	}
	if n := len(f.host.modules); n != 1 {
		t.Errorf("%d modules", n)
	}
	if n := len(f.host.Status()); n != 2 {
		t.Errorf("%d in the status", n)
	}
}

func TestAPolicyLivesUntilItsLastExchangeEnds(t *testing.T) {
	f := newFixture(t, Config{})
	p, err := f.host.Make(context.Background(), spec(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	x := newExchange()
	run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
	if _, err := run.Request(); err != nil {
		t.Fatal(err)
	}
	p.Release()
	x.Response.Status = 200
	if err := run.Response(); err != nil || len(f.host.modules) != 1 {
		t.Errorf("%v, %d modules", err, len(f.host.modules))
	}
	if err := p.NewFilter().Begin(newExchange()); !errors.Is(err, errReleased) {
		t.Errorf("a new exchange: %v", err)
	}
	run.Close()
	if len(f.host.modules) != 0 || len(f.host.policies) != 0 || len(f.host.shared.tenants) != 0 || len(f.host.meters.policies) != 0 {
		t.Error("something is left")
	}
}

func TestModulesThatCannotBeHad(t *testing.T) {
	f := newFixture(t, Config{})
	s := spec("")
	s.Digest = "sha256:00"
	if _, err := f.host.Make(context.Background(), s, nil); err == nil || !strings.Contains(err.Error(), "get module sha256:00: no such module") {
		t.Errorf("got %v", err)
	}
	f.modules["sha256:00"] = guest
	if _, err := f.host.Make(context.Background(), s, nil); err == nil || !strings.Contains(err.Error(), "module has digest "+digest(guest)) {
		t.Errorf("got %v", err)
	}
}

// TestABrokenCacheDoesNotStopAPlugin: a file cut short by a crash, say.
func TestABrokenCacheDoesNotStopAPlugin(t *testing.T) {
	dir := t.TempDir()
	module := smallest().bytes()
	use := func() error {
		h, err := NewHost(Config{CacheDir: dir, Modules: func(context.Context, string) ([]byte, error) { return module, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		_, err = h.Admit(context.Background(), "", module, Limits{})
		return err
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if len(files) == 0 {
		t.Fatal("nothing is cached")
	}
	for _, file := range files {
		if err := os.Truncate(file, 40); err != nil {
			t.Fatal(err)
		}
	}
	if err := use(); err != nil {
		t.Error(err)
	}
}

// TestAStartFunctionMayCallTheHost: what AssemblyScript makes of statements at
// the top of a file runs before there is an instance to speak of.
func TestAStartFunctionMayCallTheHost(t *testing.T) {
	m := smallest()
	m.imports, m.imported = []string{"wasi_unstable.sched_yield"}, [2]int{0, 1}
	m.start = []byte{0x10, 0, 0x1a}
	if _, err := newFixture(t, Config{}).host.Admit(context.Background(), "", m.bytes(), Limits{}); err != nil {
		t.Error(err)
	}
}

func TestTheCloseOfAHostTellsOfPoliciesLeft(t *testing.T) {
	h, err := NewHost(Config{Modules: func(context.Context, string) ([]byte, error) { return guest, nil }, CacheDir: cacheDir})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Make(context.Background(), spec(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err == nil || !strings.Contains(err.Error(), "1 policies are not released") {
		t.Errorf("got %v", err)
	}
	p.Release()
	if _, err := h.Make(context.Background(), spec(""), nil); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}

// TestHotSwap: policies are replaced under load, and no exchange notices.
func TestHotSwap(t *testing.T) {
	f := newFixture(t, Config{VMs: 4})
	type generation struct {
		chain *policy.Chain
		users sync.WaitGroup
	}
	var mu sync.Mutex
	current := &generation{chain: policy.NewChain([]policy.Policy{f.make(spec(""))}, policy.ChainConfig{})}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				g := current
				g.users.Add(1)
				mu.Unlock()
				o := serveChain(g.chain, message{fields: "x-in: v"}, message{})
				g.users.Done()
				if o.err != nil || value(o.request, "x-out") != "v" {
					t.Error(o.err)
				}
			}
		})
	}
	for i := range 20 {
		p, err := f.host.Make(context.Background(), spec(fmt.Sprint(i)), nil)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		old := current
		current = &generation{chain: policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})}
		mu.Unlock()
		old.users.Wait()
		defer p.Release()
	}
	close(stop)
	clients.Wait()
}
