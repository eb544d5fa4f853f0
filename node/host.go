package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// host is the process's one WASM host: it judges modules for the admin API and
// runs them for the proxy, so that what was compiled for one is there for the
// other.
type host struct {
	*wasm.Host
	// modules is where a proxy gets them from; set before it makes policies.
	modules atomic.Pointer[fetch]
}

type fetch func(ctx context.Context, digest string) ([]byte, error)

func (p *process) startHost(cfg Config) (*host, error) {
	h := new(host)
	cache := cmp.Or(cfg.Compiled, filepath.Join(cfg.Data, "wasm"))
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("start WASM host: %w", err)
	}
	var err error
	h.Host, err = wasm.NewHost(wasm.Config{
		Modules: func(ctx context.Context, digest string) ([]byte, error) {
			get := h.modules.Load()
			if get == nil {
				return nil, errors.New("this process runs no proxy")
			}
			return (*get)(ctx, digest)
		},
		CacheDir: cache,
		Logger:   p.log.With("part", "policies"),
	})
	if err != nil {
		return nil, fmt.Errorf("start WASM host: %w", err)
	}
	p.onStop("WASM host", h.Close)
	return h, nil
}

// Admit is for the admin API.
func (h *host) Admit(ctx context.Context, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	info, err := h.Host.Admit(ctx, module, wasm.Limits{MemoryBytes: limits.GetMemoryBytes(), Fuel: limits.GetFuel()})
	if err != nil {
		return nil, err
	}
	return &weirv1.PluginStatus{SizeBytes: uint64(info.Size), Abi: info.ABI}, nil
}
