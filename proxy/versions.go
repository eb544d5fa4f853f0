package proxy

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/internal/signature"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/canary"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// versions is what the proxy knows of the versions of plugins. It is changed with
// Proxy.mu held, and shown where that says.
//
// # Trust
//
// A module whose signatures are not what the tenant's PluginTrust, or this proxy's own
// keys, ask for is not made: whoever holds the servers or the disk can bring in none.
// It holds nobody else up either: the plugin's last good version goes on, and where
// there is none its policies fail, each as its failureMode says. The proxy's problem
// says so.
type versions struct {
	// own is whom the proxy itself trusts, beside what is declared.
	own signature.Trust
	// trust is what the tenants declare, read once while it stays the same, and checked
	// what came of each module that this revision has judged by it: a plugin's module is
	// judged once, however many rules use it.
	trust   map[string]declaredTrust
	checked map[checkKey]error
	// good are those that were trusted when they were made, the last of each plugin.
	good map[resource.Ref]pluginVersion
	// distrusted says what is not made; shown.
	distrusted map[resource.Ref]string
	// trials are those that go on; shown.
	trials map[trialKey]*trial
}

// declaredTrust is a tenant's PluginTrust, and what it says.
type declaredTrust struct {
	from *weirv1.PluginTrust
	says signature.Trust
}

// checkKey is what a judgement is about: a plugin's module, and its signatures.
type checkKey struct {
	plugin             resource.Ref
	digest, signatures string
}

// pluginVersion is a module as it was declared.
type pluginVersion struct {
	digest     string
	signatures []*weirv1.PluginSignature
}

// trialKey: each trial counts anew.
type trialKey struct {
	plugin resource.Ref
	start  int64
}

type trial struct {
	*canary.Trial
	digest, stable string
	start          *timestamppb.Timestamp
}

func newVersions(keys []ed25519.PublicKey) versions {
	own := signature.Trust{Require: len(keys) > 0}
	for i, key := range keys {
		own.Keys = append(own.Keys, signature.Key{Name: fmt.Sprintf("%d of this proxy's own", i+1), Public: key})
	}
	return versions{own: own, good: map[resource.Ref]pluginVersion{}, distrusted: map[resource.Ref]string{}, trials: map[trialKey]*trial{},
		trust: map[string]declaredTrust{}, checked: map[checkKey]error{}}
}

// check says why a module may not run.
func (p *Proxy) check(plugin resource.Ref, v pluginVersion) error {
	trust := p.trustOf(plugin.Tenant)
	key := checkKey{plugin: plugin, digest: v.digest, signatures: signed(v.signatures)}
	err, known := p.versions.checked[key]
	if !known {
		err = p.judge(trust, plugin.Name, v)
		p.versions.checked[key] = err
	}
	return err
}

func (p *Proxy) judge(trust signature.Trust, name string, v pluginVersion) error {
	signatures := resource.Signatures(v.signatures)
	if _, err := trust.Check(name, v.digest, signatures); err != nil {
		return err
	}
	_, err := p.versions.own.Check(name, v.digest, signatures)
	return err
}

// trustOf is what a tenant declares.
func (p *Proxy) trustOf(tenant string) signature.Trust {
	from := p.desired.resources[resource.TrustRef(tenant)].GetPluginTrust()
	t, known := p.versions.trust[tenant]
	if !known || t.from != from {
		t = declaredTrust{from, resource.Trust(from)}
		p.versions.trust[tenant] = t
	}
	return t.says
}

// signed is signatures as a part of a key.
func signed(list []*weirv1.PluginSignature) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%q%q", s.GetKey(), s.GetSignature())
	}
	return b.String()
}

// trusted is the version of a plugin that may run, or why none may.
func (p *Proxy) trusted(plugin resource.Ref, spec *weirv1.PluginSpec) (pluginVersion, error) {
	declared := pluginVersion{spec.GetDigest(), spec.GetSignatures()}
	err := p.check(plugin, declared)
	if err == nil {
		p.show(func() { delete(p.versions.distrusted, plugin) })
		return declared, nil
	}
	good, runs := p.versions.good[plugin]
	instead := "its policies fail"
	if runs {
		instead = good.digest + " goes on"
	}
	p.show(func() {
		p.versions.distrusted[plugin] = fmt.Sprintf("%s: module %s is refused: %s; %s", plugin, declared.digest, err, instead)
	})
	if runs {
		return good, nil
	}
	return declared, fmt.Errorf("module %s is refused: %w", declared.digest, err)
}

// makePolicy makes what a Policy declares, with the canary beside it where the plugin
// has one.
func (p *Proxy) makePolicy(ctx context.Context, spec *weirv1.Policy, services policy.Services) (policy.Policy, error) {
	s, err := p.policySpec(spec)
	if err != nil {
		return nil, err
	}
	if s.Native != "" { // it has no versions
		return p.cfg.Policies.Make(ctx, s, services)
	}
	plugin := resource.Ref{Kind: resource.KindPlugin, Tenant: s.Tenant, Name: s.Plugin}
	declared := p.desired.resources[plugin].GetPlugin()
	version, err := p.trusted(plugin, declared.GetSpec())
	if s.Digest = version.digest; err != nil {
		return distrusted{spec: s, err: err}, nil
	}
	stable, err := p.cfg.Policies.Make(ctx, s, services)
	if err != nil {
		return nil, err
	}
	p.versions.good[plugin] = version
	t := p.trialOf(plugin, declared)
	if t == nil || t.Aborted() != "" {
		return stable, nil
	}
	if err := p.check(plugin, pluginVersion{t.digest, declared.GetSpec().GetCanary().GetSignatures()}); err != nil {
		t.Abort("refused: " + err.Error())
		return stable, nil
	}
	s.Digest = t.digest
	beside, err := p.cfg.Policies.Make(ctx, s, services)
	switch {
	case err != nil && ctx.Err() != nil:
		stable.Release()
		return nil, err
	case err != nil:
		t.Abort("cannot be made: " + err.Error())
		return stable, nil
	}
	return canary.New(stable, beside, t.Trial), nil
}

// trialOf is the trial of a plugin's canary; nil: there is none.
func (p *Proxy) trialOf(ref resource.Ref, plugin *weirv1.Plugin) *trial {
	c, status := plugin.GetSpec().GetCanary(), plugin.GetStatus().GetTrial()
	if c == nil || status.GetState() != weirv1.PluginTrial_RUNNING || status.GetDigest() != c.GetDigest() {
		return nil
	}
	key := trialKey{ref, status.GetStartTime().AsTime().UnixNano()}
	t := p.versions.trials[key]
	if t == nil {
		t = &trial{digest: c.GetDigest(), stable: plugin.GetSpec().GetDigest(), start: status.GetStartTime()}
		t.Trial = canary.NewTrial(canary.Config{Percent: c.GetPercent(), OnAbort: func(reason string) {
			p.cfg.Logger.Warn("canary aborted here: every exchange has the version in force", "plugin", ref.String(), "canary", t.digest, "reason", reason)
		}})
		p.show(func() { p.versions.trials[key] = t })
	}
	return t
}

// forgetVersions drops what is known of plugins and trials that are no more.
func (p *Proxy) forgetVersions() {
	p.show(func() {
		for ref := range p.versions.distrusted {
			if p.desired.resources[ref] == nil || len(p.desired.users[ref]) == 0 {
				delete(p.versions.distrusted, ref)
			}
		}
		for key := range p.versions.trials {
			status := p.desired.resources[key.plugin].GetPlugin().GetStatus().GetTrial()
			if status.GetState() != weirv1.PluginTrial_RUNNING || status.GetStartTime().AsTime().UnixNano() != key.start {
				delete(p.versions.trials, key)
			}
		}
	})
	maps.DeleteFunc(p.versions.trust, func(tenant string, t declaredTrust) bool {
		return t.from == nil || t.from != p.desired.resources[resource.TrustRef(tenant)].GetPluginTrust()
	})
	for ref := range p.versions.good {
		if p.desired.resources[ref] == nil {
			delete(p.versions.good, ref)
		}
	}
}

// Canaries says how the canaries fare here, by tenant and name.
func (p *Proxy) Canaries() []*weirv1.PluginReport {
	p.shown.Lock()
	defer p.shown.Unlock()
	var all []*weirv1.PluginReport
	for key, t := range p.versions.trials {
		r := &weirv1.PluginReport{Tenant: key.plugin.Tenant, Name: key.plugin.Name, StartTime: t.start, Aborted: t.Aborted()}
		r.Canary, r.Stable = t.Counts()
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *weirv1.PluginReport) int {
		return strings.Compare(a.GetTenant()+"\n"+a.GetName(), b.GetTenant()+"\n"+b.GetName())
	})
	return all
}

// distrusted is a policy whose module may not run: it fails each exchange.
type distrusted struct {
	policy.NoBodies
	spec policy.Spec
	err  error
}

func (d distrusted) Spec() policy.Spec        { return d.spec }
func (d distrusted) Phases() policy.Phases    { return 0 }
func (d distrusted) NewFilter() policy.Filter { return d }
func (d distrusted) Release()                 {}

// Begin implements policy.Filter: nothing else is called after it.
func (d distrusted) Begin(*exchange.Exchange) error { return d.err }

func (d distrusted) OnRequest(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

func (d distrusted) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}
