package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/fuel"
)

// Info is what is known of a module that was admitted.
type Info struct {
	// Digest is "sha256:…".
	Digest string
	// ABI is the version of proxy-wasm that it announces, such as "0.2.1".
	ABI string
	// Exports are the functions that it exports.
	Exports []string
	// MinMemory is the memory that it starts with, in bytes.
	MinMemory uint64
	// Size is the module's, in bytes.
	Size int
	// Schema is the JSON schema of the plugin's configuration; nil: it has none.
	Schema []byte
}

// Admit says whether a module can be a plugin under the limits, or in words why
// not: it is read, checked, compiled, and started without a configuration. The name
// is that of the Plugin, "" where there is none yet. What it compiled is there for a
// while, for Try and Make.
func (h *Host) Admit(ctx context.Context, name string, bytes []byte, limits Limits) (Info, error) {
	info := Info{Digest: sha256Of(bytes), Size: len(bytes)}
	pages, err := h.config.pages(limits.MemoryBytes)
	if err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	m, err := h.acquire(ctx, moduleKey{digest: info.Digest, pages: pages}, these(bytes))
	if err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	defer h.linger(m)
	info.ABI, info.Exports = string(m.version), m.about.Exports
	info.MinMemory = uint64(m.about.MinPages) * fuel.PageSize
	if info.Schema, err = h.start(m, policy.Spec{Plugin: name, Fuel: limits.Fuel}); err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	return info, nil
}

// start makes an instance as far as it goes without a configuration, and asks it for
// the schema of one.
func (h *Host) start(m *module, spec policy.Spec) (schema []byte, err error) {
	err = h.withVM(m, spec, func(v *vm) error {
		if err := v.instantiate(); err != nil {
			return fmt.Errorf("start it with %d KiB of memory: %w%s", uint64(m.key.pages)*fuel.PageSize>>10, err, v.recent.String())
		}
		v.stage = stageRoot
		err := v.run(cbSchema, startFactor)
		v.stage = stageIdle
		if err != nil {
			return fmt.Errorf("ask for the schema of its configuration: %w%s", err, v.recent.String())
		}
		schema = v.schema
		return nil
	})
	if schema != nil && !json.Valid(schema) {
		return nil, errors.New("the schema of its configuration is not JSON")
	}
	return schema, err
}

// withVM lends a VM that belongs to no policy, of a tenant that nobody is. What it
// measures nobody else sees: others of the plugin's name may be looked at beside it.
func (h *Host) withVM(m *module, spec policy.Spec, f func(v *vm) error) error {
	spec.Tenant = ""
	p := h.bare(m, spec, new(meters))
	defer p.cut()
	defer h.shared.leave("")
	p.log.logger = slog.New(slog.DiscardHandler)
	v := newVM(p)
	defer v.close()
	return f(v)
}

// Try starts a module under each configuration, as Make would, and lets go of it. It
// returns what is wrong with each, nil where the plugin is content, or what is wrong
// with the module. The specifications are all of the same plugin.
func (h *Host) Try(ctx context.Context, bytes []byte, specs []policy.Spec) ([]error, error) {
	if len(specs) == 0 {
		return nil, nil
	}
	pages, err := h.config.pages(specs[0].MemoryBytes)
	if err != nil {
		return nil, err
	}
	if err := verify(bytes, specs[0].Digest); err != nil {
		return nil, err
	}
	m, err := h.acquire(ctx, moduleKey{digest: specs[0].Digest, pages: pages}, these(bytes))
	if err != nil {
		return nil, err
	}
	defer h.linger(m)
	wrong := make([]error, len(specs))
	for i, spec := range specs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wrong[i] = h.withVM(m, spec, func(v *vm) error {
			if err := v.start(); err != nil {
				return fmt.Errorf("%w%s", err, v.recent.String())
			}
			return nil
		})
	}
	return wrong, nil
}
