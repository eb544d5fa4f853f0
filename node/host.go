package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirmesh/weir/consumer"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/access"
	"github.com/weirmesh/weir/policy/api"
	quotapolicy "github.com/weirmesh/weir/policy/quota"
	"github.com/weirmesh/weir/policy/waf"
	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/quota"
)

// host is the process's one WASM host, and its one web application firewall: it
// judges modules and rules for the admin API and runs them for the proxy, so that
// what was compiled for one is there for the other. The policies of Apis are made
// beside them.
type host struct {
	*wasm.Host
	firewall *waf.Host
	apis     *api.Host
	access   *access.Host
	// consumers are those that the process's proxy knows.
	consumers *consumer.Registry
	// quota leases what limits admits by, for a proxy.
	quota  *quota.Client
	limits *quotapolicy.Host
	// modules is where a proxy gets them from; set before it makes policies.
	modules atomic.Pointer[fetch]
}

type fetch func(ctx context.Context, digest string) ([]byte, error)

func (p *process) startHost(cfg Config) (*host, error) {
	h := &host{firewall: waf.NewHost(waf.Config{Logger: p.log.With("part", "firewall")}), consumers: consumer.NewRegistry(), access: access.NewHost()}
	h.apis = api.NewHost(api.Config{Logger: p.log.With("part", "apis"), Consumers: h.consumers})
	h.quota = quota.New(p.log.With("part", "limits"))
	h.limits = quotapolicy.NewHost(h.quota)
	cache := cmp.Or(cfg.Compiled, filepath.Join(cfg.Data, "wasm"))
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("start WASM host: %w", err)
	}
	var err error
	settings := wasm.Config{
		Modules: func(ctx context.Context, digest string) ([]byte, error) {
			get := h.modules.Load()
			if get == nil {
				return nil, errors.New("this process runs no proxy")
			}
			return (*get)(ctx, digest)
		},
		CacheDir: cache,
		Logger:   p.log.With("part", "policies"),
	}
	h.Host, err = wasm.NewHost(settings.WithCaps(cfg.pluginLimits()))
	if err != nil {
		return nil, fmt.Errorf("start WASM host: %w", err)
	}
	p.onStop("WASM host", h.Close)
	return h, nil
}

// pluginLimits are those of the process's proxy, if it has one.
func (c *Config) pluginLimits() wasm.Caps {
	switch {
	case c.Edge != nil:
		return c.Edge.PluginLimits
	case c.Sidecar != nil:
		return c.Sidecar.PluginLimits
	}
	return nil
}

// Make implements policy.Maker.
func (h *host) Make(ctx context.Context, spec policy.Spec, services policy.Services) (policy.Policy, error) {
	switch spec.Native {
	case policy.Firewall:
		return h.firewall.Make(ctx, spec, services)
	case policy.Operation, policy.Lifecycle, policy.APIKey, policy.Contract:
		return h.apis.Make(ctx, spec, services)
	case policy.Access:
		return h.access.Make(ctx, spec, services)
	case policy.Quota:
		return h.limits.Make(ctx, spec, services)
	}
	return h.Host.Make(ctx, spec, services)
}

// problem adds to a proxy's which of its policies do little but fail.
func (h *host) problem(ofProxy string) string {
	ofPolicies := h.Problem()
	if ofProxy == "" || ofPolicies == "" {
		return ofProxy + ofPolicies
	}
	return ofProxy + "; " + ofPolicies
}

// TryFirewall is for the admin API.
func (h *host) TryFirewall(ctx context.Context, settings *weirv1.Firewall) (field, message string, err error) {
	var problem *waf.Problem
	if err = h.firewall.Check(ctx, settings); errors.As(err, &problem) {
		return problem.Field, problem.Message, nil
	}
	return "", "", err
}

// Admit is for the admin API.
func (h *host) Admit(ctx context.Context, name string, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	info, err := h.Host.Admit(ctx, name, module, wasm.Limits{MemoryBytes: limits.GetMemoryBytes(), Fuel: limits.GetFuel()})
	if err != nil {
		return nil, err
	}
	status := &weirv1.PluginStatus{SizeBytes: uint64(info.Size), Abi: info.ABI}
	if info.Schema != nil {
		status.ConfigSchema = new(structpb.Struct)
		if err := protojson.Unmarshal(info.Schema, status.ConfigSchema); err != nil {
			return nil, fmt.Errorf("read the schema of its configuration: %w", err)
		}
	}
	return status, nil
}

// Try is for the admin API.
func (h *host) Try(ctx context.Context, plugin *weirv1.Plugin, module []byte, policies []*weirv1.Policy) ([]error, error) {
	limits := plugin.GetSpec().GetLimits()
	specs := make([]policy.Spec, len(policies))
	for i, p := range policies {
		specs[i] = policy.Spec{Name: p.GetMetadata().GetName(), Plugin: plugin.GetMetadata().GetName(), Digest: plugin.GetSpec().GetDigest(),
			MemoryBytes: limits.GetMemoryBytes(), Fuel: limits.GetFuel()}
		if config := p.GetSpec().GetConfig(); config != nil {
			text, err := config.MarshalJSON()
			if err != nil {
				return nil, fmt.Errorf("encode configuration: %w", err)
			}
			specs[i].Config = string(text)
		}
	}
	return h.Host.Try(ctx, module, specs)
}
