package proxy_test

import (
	"context"
	"testing"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
)

// slowHost takes until it is told to make the policies of plugins, as a compiler does.
type slowHost struct {
	policy.Maker
	begun, end chan struct{}
}

func (h *slowHost) Make(ctx context.Context, spec policy.Spec, services policy.Services) (policy.Policy, error) {
	if spec.Plugin == "slow" {
		h.begun <- struct{}{}
		select {
		case <-h.end:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return h.Maker.Make(ctx, spec, services)
}

func wrapped(messages ...resource.Message) (rs []*weirv1.Resource) {
	for _, m := range messages {
		rs = append(rs, resource.Wrap(m))
	}
	return rs
}

// A key that is revoked while an earlier update is still being compiled is refused at
// once, also where that update is the one that lets it in; and it counts again as soon
// as it is declared anew.
func TestRevokedWhileAnUpdateIsCompiled(t *testing.T) {
	h := &slowHost{begun: make(chan struct{}), end: make(chan struct{})}
	e := startKeyed(t, func(c *proxy.Config) { h.Maker, c.Policies = c.Policies, h },
		&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "slow"}, Spec: &weirv1.PluginSpec{Digest: "sha256:00"}})
	want := func(what, key string, status int) {
		t.Helper()
		if resp, body := get(t, e.url("/books"), "x-api-key", key); resp.StatusCode != status {
			t.Errorf("%s: got %s %s, want %d", what, resp.Status, body, status)
		}
	}
	gone := func(name string) []resource.Ref {
		return []resource.Ref{{Kind: resource.KindCredential, Tenant: "default", Name: name}}
	}
	first := e.revision + 1
	compiled := make(chan error)
	// It is revoked while what lets it in is on its way to Update.
	e.Revoke(proxy.Update{Revision: first + 1, Deletes: gone("demo-3")})
	go func() {
		compiled <- e.Update(t.Context(), proxy.Update{Revision: first, Puts: wrapped(
			&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "slow"}, Spec: &weirv1.PolicySpec{Plugin: "slow", TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}}},
			credentialOf("demo-2", "demo", "k2"), credentialOf("demo-3", "demo", "k3"))})
	}()
	<-h.begun
	want("before", "k1", 200)
	want("new", "k2", 200)
	want("revoked before it was let in", "k3", 401)
	e.Revoke(proxy.Update{Revision: first + 2, Deletes: append(gone("demo-1"), gone("demo-2")...)})
	want("revoked meanwhile", "k1", 401)
	want("new and revoked meanwhile", "k2", 401)
	close(h.end)
	if err := <-compiled; err != nil {
		t.Fatal(err)
	}
	want("once it is compiled", "k1", 401)
	want("once it is compiled", "k2", 401)
	want("once it is compiled", "k3", 401)

	if err := e.Update(t.Context(), proxy.Update{Revision: first + 2, Deletes: append(gone("demo-3"), append(gone("demo-1"), gone("demo-2")...)...)}); err != nil {
		t.Fatal(err)
	}
	want("once it has come", "k1", 401)
	if err := e.Update(t.Context(), proxy.Update{Revision: first + 3, Puts: wrapped(credentialOf("demo-1", "demo", "k1"), credentialOf("demo-2", "demo", "k2"))}); err != nil {
		t.Fatal(err)
	}
	want("declared anew", "k1", 200)
	want("declared anew", "k2", 200)
}

// A snapshot that is still to come revokes what is not in it, and what an earlier update
// has yet to let in.
func TestRevokedByASnapshotThatIsToCome(t *testing.T) {
	e := startKeyed(t, unchanged)
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}}}}
	all := wrapped(append([]resource.Message{gateway}, e.declared...)...)
	without := proxy.Update{Snapshot: true, Revision: e.revision + 2}
	for _, r := range all {
		if r.GetCredential() == nil {
			without.Puts = append(without.Puts, r)
		}
	}
	want := func(what, key string, status int) {
		t.Helper()
		if resp, _ := get(t, e.url("/books"), "x-api-key", key); resp.StatusCode != status {
			t.Errorf("%s: %s got %s, want %d", what, key, resp.Status, status)
		}
	}
	e.Revoke(without)
	want("ahead", "k1", 401)
	if err := e.Update(t.Context(), proxy.Update{Revision: e.revision + 1, Puts: wrapped(credentialOf("demo-2", "demo", "k2"))}); err != nil {
		t.Fatal(err)
	}
	want("before it", "k2", 401)
	// It never comes: what does is all there is, as it was before.
	if err := e.Update(t.Context(), proxy.Update{Snapshot: true, Revision: e.revision + 3, Puts: all}); err != nil {
		t.Fatal(err)
	}
	want("in its place", "k1", 200)
	want("in its place", "k2", 401)
}

// Where nobody is told who may call there is nobody to take anything from.
func TestRevokeWithoutConsumers(t *testing.T) {
	e := startEdgeWith(t, func(*proxy.Config) {}, service("s", "127.0.0.1:1"), route("r", "/", "s"))
	e.Revoke(proxy.Update{Snapshot: true, Revision: 99})
	if err := e.Update(t.Context(), proxy.Update{Revision: 2, Puts: wrapped(credentialOf("demo-1", "demo", "k1"))}); err != nil {
		t.Fatal(err)
	}
}
