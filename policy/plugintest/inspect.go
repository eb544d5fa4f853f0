package plugintest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/weirmesh/weir/policy/wasm"
	"github.com/weirmesh/weir/policy/wasm/fuel"
	"github.com/weirmesh/weir/policy/wasm/sections"
)

// Inspection is what is known of a module.
type Inspection struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
	// Kind is "module", "component" or "not WASM".
	Kind string `json:"kind"`
	// ABI are the versions of proxy-wasm that it announces.
	ABI []string `json:"abi"`
	// Toolchain is what made it, as far as it says.
	Toolchain []string `json:"toolchain"`
	Functions int      `json:"functions"`
	CodeBytes int      `json:"codeBytes"`
	DataBytes int      `json:"dataBytes"`
	// Named: its functions have names, so that traps can tell where they happened.
	Named  bool    `json:"named"`
	Memory *Memory `json:"memory,omitempty"`
	// WASI lists the functions of the system interface that it imports.
	WASI    []string `json:"wasi"`
	Imports []Import `json:"imports"`
	// Callbacks are exports that the host calls, Ignored those that it does not.
	Callbacks []string `json:"callbacks"`
	Ignored   []string `json:"ignored"`
	// Accepted says that push would take it, Refused why not.
	Accepted bool   `json:"accepted"`
	Refused  string `json:"refused,omitempty"`
}

// Memory is what a module declares, in bytes. Max is 0 when it sets no bound.
type Memory struct {
	Min    uint64 `json:"min"`
	Max    uint64 `json:"max,omitempty"`
	Shared bool   `json:"shared,omitempty"`
}

// Import is one function, or another thing, that a module asks for.
type Import struct {
	Module  string       `json:"module"`
	Name    string       `json:"name"`
	Kind    string       `json:"kind"`
	Support wasm.Support `json:"support"`
	About   string       `json:"about,omitempty"`
}

// Inspect says what a module is, whoever made it, and whether it could be pushed
// under these limits. The error is for what is wrong with the host.
func Inspect(ctx context.Context, module []byte, options Options) (Inspection, error) {
	sum := sha256.Sum256(module)
	out := Inspection{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(module)}
	about, err := sections.Read(module)
	out.describe(&about, err)
	r, err := NewRunner(module, options)
	if err != nil {
		return out, err
	}
	defer r.Close()
	_, err = r.host.Admit(ctx, "", module, wasm.Limits{MemoryBytes: options.MemoryBytes, Fuel: options.Fuel})
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if out.Accepted = err == nil; err != nil {
		out.Refused = strings.TrimPrefix(strings.TrimPrefix(err.Error(), "admit module: "), "read module: ")
	}
	return out, nil
}

func (out *Inspection) describe(m *sections.Module, unread error) {
	out.Kind = "module"
	switch {
	case m.Component:
		out.Kind = "component"
	case unread == sections.ErrNotWASM:
		out.Kind = "not WASM"
	}
	out.Functions, out.CodeBytes, out.DataBytes, out.Named = m.Functions, m.CodeBytes, m.DataBytes, m.Named
	out.ABI, out.Toolchain, out.WASI, out.Callbacks, out.Ignored = []string{}, []string{}, []string{}, []string{}, []string{}
	out.Imports = []Import{}
	for _, p := range m.Producers {
		out.Toolchain = append(out.Toolchain, strings.TrimSpace(p.Name+" "+p.Version))
	}
	if m.Memory != nil {
		out.Memory = &Memory{Min: bytesOf(m.Memory.Min), Max: bytesOf(m.Memory.Max), Shared: m.Memory.Shared}
	}
	for _, i := range m.Imports {
		support, about := wasm.SupportFor(i)
		out.Imports = append(out.Imports, Import{i.Module, i.Name, i.Kind.String(), support, about})
		if isSystem(i.Module) {
			out.WASI = append(out.WASI, i.Name)
		}
	}
	slices.SortStableFunc(out.Imports, func(a, b Import) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Name, b.Name))
	})
	out.Imports = slices.Compact(out.Imports) // stock Go asks twice for some
	slices.Sort(out.WASI)
	out.WASI = slices.Compact(out.WASI)
	out.exports(m.Exports)
}

func (out *Inspection) exports(exports []sections.Export) {
	for _, e := range exports {
		version, marker := strings.CutPrefix(e.Name, "proxy_abi_version_")
		switch {
		case e.Kind != sections.Function:
		case marker:
			out.ABI = append(out.ABI, strings.ReplaceAll(version, "_", "."))
		case wasm.IsCallback(e.Name):
			out.Callbacks = append(out.Callbacks, e.Name)
		case strings.HasPrefix(e.Name, "proxy_"):
			out.Ignored = append(out.Ignored, e.Name)
		}
	}
	slices.Sort(out.ABI)
	slices.Sort(out.Callbacks)
	slices.Sort(out.Ignored)
}

// bytesOf makes bytes of pages, of which a module may claim any number.
func bytesOf(pages uint64) uint64 { return min(pages, 1<<48/fuel.PageSize) * fuel.PageSize }

func isSystem(module string) bool { return strings.HasPrefix(module, "wasi_") }

// Count says how many imports have that support.
func (out *Inspection) Count(support wasm.Support) (n int) {
	for _, i := range out.Imports {
		if i.Support == support {
			n++
		}
	}
	return n
}

// Speaks says in words what the module is to a host of plugins.
func (out *Inspection) Speaks() string {
	switch {
	case out.Kind == "component":
		return "a component (WASI 0.2)"
	case out.Kind != "module":
		return "not a WASM module"
	case len(out.ABI) == 0:
		return "none: it is no proxy-wasm plugin"
	}
	return fmt.Sprintf("proxy-wasm %s", strings.Join(out.ABI, ", "))
}
