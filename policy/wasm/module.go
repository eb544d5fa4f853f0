package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/policy/wasm/fuel"
)

// moduleKey is what compiled code depends on: the memory limit is written into
// the rewritten module.
type moduleKey struct {
	digest string
	pages  uint32
}

// module is a plugin version, compiled. It has an engine runtime of its own, so
// that closing it frees all that it made: code, types, host functions.
type module struct {
	host *Host
	key  moduleKey

	// ready is closed when the rest is set, or err says why it is not.
	ready chan struct{}
	err   error

	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	about    *fuel.Module
	version  abi.Version

	refs int // under Host.mu
}

// memory is how much of it a VM may have.
func (m *module) memory() int64 { return int64(m.key.pages) * fuel.PageSize }

// acquire returns the compiled module; give it back with module.release. Where it is not
// compiled yet, get has the bytes that the key's digest is of: see fetch and these.
func (h *Host) acquire(ctx context.Context, key moduleKey, get func(ctx context.Context, digest string) ([]byte, error)) (*module, error) {
	for {
		h.mu.Lock()
		m := h.modules[key]
		mine := m == nil
		if mine {
			m = &module{host: h, key: key, ready: make(chan struct{})}
			h.modules[key] = m
		}
		m.refs++
		h.mu.Unlock()
		if mine {
			m.err = m.load(ctx, get)
			close(m.ready)
		}
		// Who waits need not look at its own context: loading ends by the
		// context of the one who loads, or by itself.
		<-m.ready
		if m.err == nil {
			return m, nil
		}
		m.release()
		abandoned := errors.Is(m.err, context.Canceled) || errors.Is(m.err, context.DeadlineExceeded)
		if mine || !abandoned || ctx.Err() != nil {
			return nil, m.err
		}
	}
}

// release closes the module when no policy uses it any more.
func (m *module) release() {
	h := m.host
	h.mu.Lock()
	m.refs--
	last := m.refs == 0
	if (last || m.err != nil) && h.modules[m.key] == m {
		delete(h.modules, m.key)
	}
	h.mu.Unlock()
	if last {
		m.close()
	}
}

func (m *module) close() {
	ctx := context.Background()
	if m.compiled != nil {
		_ = m.compiled.Close(ctx) // counted by the engine: once only
		m.compiled = nil
	}
	if m.runtime != nil {
		_ = m.runtime.Close(ctx)
		m.runtime = nil
	}
}

func (m *module) load(ctx context.Context, get func(context.Context, string) ([]byte, error)) error {
	bytes, err := get(ctx, m.key.digest)
	if err != nil {
		return err
	}
	return m.compile(ctx, bytes)
}

// fetch gets a module from where they are kept.
func (h *Host) fetch(ctx context.Context, digest string) ([]byte, error) {
	bytes, err := h.config.Modules(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("get module %s: %w", digest, err)
	}
	return bytes, verify(bytes, digest)
}

// these are the bytes of a module that is here already.
func these(bytes []byte) func(context.Context, string) ([]byte, error) {
	return func(context.Context, string) ([]byte, error) { return bytes, nil }
}

func sha256Of(module []byte) string {
	sum := sha256.Sum256(module)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func verify(module []byte, digest string) error {
	if got := sha256Of(module); got != digest {
		return fmt.Errorf("module has digest %s, not %s", got, digest)
	}
	return nil
}

// compile rewrites, checks and compiles.
func (m *module) compile(ctx context.Context, bytes []byte) error {
	h := m.host
	rewritten, about, err := fuel.Rewrite(bytes, fuel.Limits{ModuleBytes: h.config.ModuleBytes, MemoryPages: m.key.pages})
	if err != nil {
		return fmt.Errorf("read module: %w", err)
	}
	m.about = about
	if m.version, err = checkABI(about); err != nil {
		return err
	}
	select {
	case h.compiling <- struct{}{}:
		defer func() { <-h.compiling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err = m.compileWith(h.cache, rewritten)
	if err != nil && h.config.CacheDir != "" {
		// The cache on disk may be at fault: a broken file there must not stop a
		// plugin for good.
		m.close()
		if m.compileWith(nil, rewritten) == nil {
			h.config.Logger.Warn("compiled a module without the cache", "digest", m.key.digest, "error", err)
			err = nil
		}
	}
	if err != nil {
		m.close()
		return fmt.Errorf("compile module: %w", err)
	}
	return m.checkSignatures()
}

func (m *module) compileWith(cache wazero.CompilationCache, rewritten []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the engine cannot compile it: %v", r)
		}
	}()
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).
		WithDebugInfoEnabled(false).WithMemoryLimitPages(m.key.pages)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := m.link(ctx); err != nil {
		return err
	}
	m.compiled, err = m.runtime.CompileModule(ctx, rewritten)
	return err
}

// link makes the host functions that the module imports, and only those: making
// one takes the engine some ten microseconds.
func (m *module) link(ctx context.Context) error {
	builders := map[string]wazero.HostModuleBuilder{}
	done := map[fuel.Import]bool{}
	for _, i := range m.about.Imports {
		f, ok := lookup(i)
		if !ok || done[i] {
			continue
		}
		done[i] = true
		b := builders[i.Module]
		if b == nil {
			b = m.runtime.NewHostModuleBuilder(i.Module)
			builders[i.Module] = b
		}
		params, results := f.signature()
		b.NewFunctionBuilder().WithGoModuleFunction(f.bind(), params, results).Export(i.Name)
	}
	for name, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("make host module %s: %w", name, err)
		}
	}
	return nil
}

// checkABI says which version of proxy-wasm a module speaks, or why it is no
// plugin.
func checkABI(about *fuel.Module) (version abi.Version, err error) {
	exports := map[string]bool{}
	var markers []string
	callbacks := 0
	for _, name := range about.Exports {
		exports[name] = true
		if strings.HasPrefix(name, "proxy_abi_version_") {
			markers = append(markers, name)
		}
		if strings.HasPrefix(name, "proxy_on_") && name != "proxy_on_memory_allocate" {
			callbacks++
		}
	}
	for _, v := range []abi.Version{abi.V02100, abi.V021, abi.V020, abi.V010} {
		if exports[v.Marker()] {
			version = v
			break
		}
	}
	switch {
	case version == "" && len(markers) > 0:
		return "", fmt.Errorf("it speaks %s: proxy-wasm 0.1.0, 0.2.0 and 0.2.1 are served, and Higress's 0.2.100", strings.Join(markers, ", "))
	case version == "":
		return "", errors.New("it is no proxy-wasm plugin: it exports no proxy_abi_version_0_2_1 (or 0_2_0, 0_1_0)")
	case !about.HasMemory:
		return "", errors.New("it has no memory")
	case !exports["proxy_on_memory_allocate"] && !exports["malloc"]:
		return "", errors.New("it exports neither proxy_on_memory_allocate nor malloc")
	case callbacks == 0:
		return "", errors.New("it exports no callback: proxy_on_request_headers, …")
	}
	return version, checkImports(about.Imports)
}

func checkImports(imports []fuel.Import) error {
	var unknown []string
	for _, i := range imports {
		if _, ok := lookup(i); !ok {
			unknown = append(unknown, i.Module+"."+i.Name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	const most = 10
	more := ""
	if len(unknown) > most {
		more = fmt.Sprintf(" and %d more", len(unknown)-most)
		unknown = unknown[:most]
	}
	return fmt.Errorf("it imports what this host does not have: %s%s", strings.Join(unknown, ", "), more)
}

// checkSignatures holds imports and exports against what host and guest agree on.
func (m *module) checkSignatures() error {
	for _, f := range m.compiled.ImportedFunctions() {
		module, name, _ := f.Import()
		host, _ := lookup(fuel.Import{Module: module, Name: name})
		params, results := host.signature()
		if !equalTypes(f.ParamTypes(), params) || !equalTypes(f.ResultTypes(), results) {
			return fmt.Errorf("it imports %s.%s as %s, which is %s", module, name,
				signature(f.ParamTypes(), f.ResultTypes()), signature(params, results))
		}
	}
	exports := m.compiled.ExportedFunctions()
	for _, c := range callbacks {
		if f := exports[c.name]; f != nil && !c.fits(f) {
			return fmt.Errorf("it exports %s as %s", c.name, signature(f.ParamTypes(), f.ResultTypes()))
		}
	}
	return nil
}

func equalTypes(a, b []api.ValueType) bool { return string(a) == string(b) }

func signature(params, results []api.ValueType) string {
	names := func(types []api.ValueType) string {
		var out []string
		for _, t := range types {
			out = append(out, api.ValueTypeName(t))
		}
		return strings.Join(out, ", ")
	}
	return "(" + names(params) + ") → (" + names(results) + ")"
}
