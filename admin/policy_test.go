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
