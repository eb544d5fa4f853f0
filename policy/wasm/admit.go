package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
}

// Admit says whether a module can be a plugin under the limits, or in words why
// not: it is read, checked, compiled, and started without a configuration. What
// it compiled stays in the cache for Make.
func (h *Host) Admit(ctx context.Context, bytes []byte, limits Limits) (Info, error) {
	sum := sha256.Sum256(bytes)
	info := Info{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(bytes)}
	pages, err := h.config.pages(limits.MemoryBytes)
	if err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	m := &module{host: h, key: moduleKey{digest: info.Digest, pages: pages}, refs: 1}
	defer m.release()
	if err := m.compile(ctx, bytes); err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	info.ABI, info.Exports = string(m.version), m.about.Exports
	info.MinMemory = uint64(m.about.MinPages) * fuel.PageSize
	if err := h.try(m, limits); err != nil {
		return info, fmt.Errorf("admit module: %w", err)
	}
	return info, nil
}

// try starts an instance as far as it goes without a configuration.
func (h *Host) try(m *module, limits Limits) error {
	p := h.bare(m, policy.Spec{Fuel: limits.Fuel})
	defer h.shared.leave("")
	defer h.meters.leave("", "")
	p.log.logger = slog.New(slog.DiscardHandler)
	v := newVM(p)
	defer v.close()
	if err := v.instantiate(); err != nil {
		return fmt.Errorf("start it with %d KiB of memory: %w%s", uint64(m.key.pages)*fuel.PageSize>>10, err, v.recent.String())
	}
	return nil
}
