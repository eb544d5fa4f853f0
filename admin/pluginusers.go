package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// tryUsers asks the modules that are new in a Plugin whether they take the
// configurations of the policies that use it: no proxy could go over to one that does
// not, nor to whatever is declared after it. module is the new one's bytes, nil where it
// is stored. What spared says is judged elsewhere. A policy that the module in force
// refuses as well is no worse off.
func (s *service) tryUsers(ctx context.Context, plugin, old *weirv1.Plugin, module []byte, spared func(resource.Ref) bool) ([]Violation, error) {
	if old == nil {
		return nil, nil // nobody uses it
	}
	is, was := plugin.GetSpec(), old.GetSpec()
	limited := !proto.Equal(is.GetLimits(), was.GetLimits())
	var modules []string
	if limited || is.GetDigest() != was.GetDigest() {
		modules = append(modules, is.GetDigest())
	}
	if canary := is.GetCanary().GetDigest(); canary != "" && (limited || canary != was.GetCanary().GetDigest()) {
		modules = append(modules, canary)
	}
	if len(modules) == 0 {
		return nil, nil
	}
	users := s.usersOf(resource.Of(resource.Wrap(plugin)), spared)
	var violations []Violation
	for _, digest := range modules {
		found, err := s.tryModule(ctx, withModule(plugin, digest), module, users)
		if err != nil {
			return nil, err
		}
		violations = append(violations, found...)
	}
	if len(violations) == 0 {
		return nil, nil
	}
	before, err := s.tryModule(ctx, old, nil, users)
	if err != nil {
		return nil, err
	}
	refused := map[resource.Ref]bool{}
	for _, v := range before {
		refused[v.Ref] = true
	}
	return dropRefs(violations, refused), nil
}

// withModule is a Plugin with one of its modules in force.
func withModule(plugin *weirv1.Plugin, digest string) *weirv1.Plugin {
	if plugin.GetSpec().GetDigest() == digest {
		return plugin
	}
	plugin = proto.CloneOf(plugin)
	plugin.Spec.Digest = digest
	return plugin
}

func dropRefs(violations []Violation, refs map[resource.Ref]bool) (left []Violation) {
	for _, v := range violations {
		if !refs[v.Ref] {
			left = append(left, v)
		}
	}
	return left
}

// tryModule is try for a module that may not be stored yet.
func (s *service) tryModule(ctx context.Context, plugin *weirv1.Plugin, module []byte, policies []*weirv1.Policy) ([]Violation, error) {
	if module == nil || digestOf(module) != plugin.GetSpec().GetDigest() {
		return s.try(ctx, plugin, policies)
	}
	return s.tryWith(ctx, plugin, module, policies)
}

// usersOf are the stored policies that use a plugin, one of each configuration.
func (s *service) usersOf(plugin resource.Ref, spared func(resource.Ref) bool) (users []*weirv1.Policy) {
	const page = 500
	seen := map[string]bool{}
	var after resource.Ref
	for {
		list, more := s.Store.View().List(resource.KindPolicy, plugin.Tenant, after, page)
		for _, r := range list {
			after = resource.Of(r)
			p := r.GetPolicy()
			if p.GetSpec().GetPlugin() != plugin.Name || p.GetSpec().GetWaf() != nil || spared(after) {
				continue
			}
			config, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.GetSpec().GetConfig())
			if err == nil && seen[string(config)] {
				continue
			}
			seen[string(config)] = true
			users = append(users, p)
		}
		if !more || len(list) == 0 {
			return users
		}
	}
}

// refuseUsers is tryUsers as an error that names the policies.
func (s *service) refuseUsers(ctx context.Context, plugin, old *weirv1.Plugin, module []byte) error {
	violations, err := s.tryUsers(ctx, plugin, old, module, func(resource.Ref) bool { return false })
	if err != nil || len(violations) == 0 {
		return err
	}
	for i := range violations {
		violations[i].Reason = ReasonState
		violations[i].Message += fmt.Sprintf("; change the policy with it (weir apply), or force it, and no proxy takes the configuration until %s is changed", violations[i].Ref)
	}
	return refusal(&Refused{Violations: violations}, func(resource.Ref) resource.Path { return "" })
}
