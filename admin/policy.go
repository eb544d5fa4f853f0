package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// tryPolicies asks the plugins whether they take the configurations that policies are
// put with, before a proxy does. A policy that stays as it is is not tried again, nor is
// one whose plugin is not there, which is the store's to refuse. A Plugin that is put
// with another module is tried with the policies that are stored.
func (s *service) tryPolicies(ctx context.Context, tx *weirv1.Transact, index func(resource.Ref) resource.Path) error {
	puts := tx.GetPuts()
	byPlugin := map[resource.Ref][]*weirv1.Policy{}
	var order []resource.Ref
	put := map[resource.Ref]*weirv1.Plugin{}
	for _, r := range puts {
		if plugin := r.GetPlugin(); plugin != nil {
			put[resource.Of(r)] = plugin
		}
	}
	for _, r := range puts {
		p := r.GetPolicy()
		if p == nil || p.GetSpec().GetWaf() != nil {
			continue
		}
		plugin := resource.Ref{Kind: resource.KindPlugin, Tenant: resource.Of(r).Tenant, Name: p.GetSpec().GetPlugin()}
		if put[plugin] == nil && s.sameConfig(resource.Of(r), p) {
			continue
		}
		if byPlugin[plugin] == nil {
			order = append(order, plugin)
		}
		byPlugin[plugin] = append(byPlugin[plugin], p)
	}
	violations, err := s.tryFirewalls(ctx, puts)
	if err != nil {
		return err
	}
	for _, ref := range order {
		plugin := put[ref]
		if plugin == nil {
			stored, _ := s.Store.View().Get(ref)
			plugin = stored.GetPlugin()
		}
		found, err := s.try(ctx, plugin, byPlugin[ref])
		if err != nil {
			return err
		}
		violations = append(violations, found...)
	}
	named := refsOf(tx)
	for ref, plugin := range put {
		found, err := s.tryUsers(ctx, plugin, s.storedPlugin(ref), nil, func(r resource.Ref) bool { return named[r] })
		if err != nil {
			return err
		}
		violations = append(violations, found...)
	}
	if len(violations) > 0 {
		return refusal(&Refused{Violations: violations}, index)
	}
	return nil
}

// refsOf is all that a transaction puts or deletes.
func refsOf(tx *weirv1.Transact) map[resource.Ref]bool {
	named := map[resource.Ref]bool{}
	for _, r := range tx.GetPuts() {
		named[resource.Of(r)] = true
	}
	for _, m := range tx.GetDeletes() {
		named[resource.RefOf(m)] = true
	}
	return named
}

// tryFirewalls compiles the rules of those policies that are the web application
// firewall's use, unless they are stored as they are.
func (s *service) tryFirewalls(ctx context.Context, puts []*weirv1.Resource) (violations []Violation, err error) {
	for _, r := range puts {
		settings := r.GetPolicy().GetSpec().GetWaf()
		stored, _ := s.Store.View().Get(resource.Of(r))
		if settings == nil || proto.Equal(stored.GetPolicy().GetSpec().GetWaf(), settings) {
			continue
		}
		field, message, err := s.Admission.TryFirewall(ctx, settings)
		if err != nil {
			return nil, fmt.Errorf("try firewall %s: %w", r.GetPolicy().GetMetadata().GetName(), err)
		}
		if message == "" {
			continue
		}
		at := resource.Path("spec.waf")
		if field != "" {
			at = at.Field(field)
		}
		violations = append(violations, Violation{Ref: resource.Of(r), Field: string(at), Reason: ReasonInvalid, Message: message})
	}
	return violations, nil
}

// sameConfig reports whether the policy that is stored has the same plugin and
// configuration.
func (s *service) sameConfig(ref resource.Ref, p *weirv1.Policy) bool {
	stored, _ := s.Store.View().Get(ref)
	old := stored.GetPolicy().GetSpec()
	return old != nil && old.GetPlugin() == p.GetSpec().GetPlugin() && proto.Equal(old.GetConfig(), p.GetSpec().GetConfig())
}

func (s *service) try(ctx context.Context, plugin *weirv1.Plugin, policies []*weirv1.Policy) ([]Violation, error) {
	if plugin == nil {
		return nil, nil
	}
	module, err := s.Store.Blob(plugin.GetSpec().GetDigest())
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if module == nil {
		return nil, nil
	}
	return s.tryWith(ctx, plugin, module, policies)
}

func (s *service) tryWith(ctx context.Context, plugin *weirv1.Plugin, module []byte, policies []*weirv1.Policy) ([]Violation, error) {
	wrong, err := s.Admission.Try(ctx, plugin, module, policies)
	if err != nil {
		return nil, fmt.Errorf("try plugin %s: %w", plugin.GetMetadata().GetName(), err)
	}
	var violations []Violation
	for i, err := range wrong {
		if err != nil {
			violations = append(violations, Violation{Ref: resource.Of(resource.Wrap(policies[i])), Field: "spec.config", Reason: ReasonInvalid,
				Message: fmt.Sprintf("is refused by the plugin %s: %s", plugin.GetMetadata().GetName(), err)})
		}
	}
	return violations, nil
}
