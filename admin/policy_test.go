package admin_test

import (
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// TestConfigurationsAreTried: what a plugin refuses is not stored, and the place of it
// is said.
func TestConfigurationsAreTried(t *testing.T) {
	a := start(t, nil)
	a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 1)})
	apply := func(member string) error {
		config, err := structpb.NewStruct(map[string]any{member: 1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{
			resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
				Listeners: []*weirv1.Listener{{Name: "http", Port: 8080, Protocol: weirv1.Listener_HTTP}}}}),
			resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "p"}, Spec: &weirv1.PolicySpec{
				TargetRefs: []*weirv1.TargetRef{{Kind: "Gateway", Name: "public"}}, Plugin: "stamp", Config: config}}),
		}})
		return err
	}
	fields := expectError(t, apply("wrong"), connect.CodeInvalidArgument, "is refused by the plugin stamp: it refuses its configuration")
	if len(fields) != 1 || fields[0] != "resources[1].spec.config" {
		t.Errorf("the fields are %q", fields)
	}
	if err := apply("right"); err != nil {
		t.Error(err)
	}
	if err := apply("wrong"); err == nil {
		t.Error("a change to a wrong configuration is taken")
	}
}

// TestANewModuleIsTriedWithThePoliciesThatUseIt: one that refuses a configuration that
// the module in force takes does not come in, by whatever way, unless that is forced or
// the policy changes with it.
func TestANewModuleIsTriedWithThePoliciesThatUseIt(t *testing.T) {
	a := start(t, nil)
	one, two := module(10, 1), module(20, 1)
	a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: one})
	policyFor := func(name string, module []byte) *weirv1.Resource {
		config, err := structpb.NewStruct(map[string]any{"size": len(module)})
		if err != nil {
			t.Fatal(err)
		}
		return resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: "Gateway", Name: "public"}}, Plugin: "stamp", Config: config}})
	}
	apply := func(resources ...*weirv1.Resource) error {
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: resources})
		return err
	}
	if err := apply(resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 8080, Protocol: weirv1.Listener_HTTP}}}}), policyFor("p", one)); err != nil {
		t.Fatal(err)
	}
	push := func(change func(*weirv1.PushPluginRequest)) error {
		req := &weirv1.PushPluginRequest{Name: "stamp", Module: two}
		change(req)
		_, err := a.PushPlugin(t.Context(), req)
		return err
	}
	plugin := func(module []byte) *weirv1.Resource {
		return resource.Wrap(&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "stamp"}, Spec: &weirv1.PluginSpec{Digest: digestOf(module)}})
	}
	if _, err := a.PushModule(t.Context(), &weirv1.PushModuleRequest{Module: two}); err != nil {
		t.Fatal(err)
	}
	const complaint = "Policy p: spec.config: is refused by the plugin stamp: it wants a module of another size"
	for name, c := range map[string]struct {
		do   func() error
		code connect.Code
	}{
		"pushed":      {func() error { return push(func(*weirv1.PushPluginRequest) {}) }, connect.CodeFailedPrecondition},
		"tried":       {func() error { return push(func(r *weirv1.PushPluginRequest) { r.DryRun = true }) }, connect.CodeFailedPrecondition},
		"as a canary": {func() error { return push(func(r *weirv1.PushPluginRequest) { r.CanaryPercent = 5 }) }, connect.CodeFailedPrecondition},
		"applied":     {func() error { return apply(plugin(two)) }, connect.CodeInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			expectError(t, c.do(), c.code, complaint)
		})
	}
	if err := apply(plugin(two), policyFor("p", two)); err != nil {
		t.Errorf("both together: %v", err)
	}
	_, err := a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp"})
	expectError(t, err, connect.CodeFailedPrecondition, complaint)
	if _, err := a.RollbackPlugin(t.Context(), &weirv1.RollbackPluginRequest{Name: "stamp", Force: true}); err != nil {
		t.Errorf("rolled back by force: %v", err)
	}
	if err := push(func(r *weirv1.PushPluginRequest) { r.Module = module(30, 1) }); err != nil {
		t.Errorf("a policy that the module in force refuses, too: %v", err)
	}
	if err := apply(policyFor("p", module(30, 1))); err != nil {
		t.Error(err)
	}
	if err := push(func(r *weirv1.PushPluginRequest) { r.Force = true }); err != nil {
		t.Errorf("by force: %v", err)
	}
}
