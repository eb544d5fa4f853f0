package node

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// keyedShop is the shop, by a gateway for each zone, and what lets the App demo call it.
func keyedShop(t *testing.T, upstream *httptest.Server, zones map[string]string) []*weirv1.Resource {
	t.Helper()
	var rs []*weirv1.Resource
	var parents []*weirv1.ParentRef
	for zone, listen := range zones {
		all := shop(t, listen, upstream, "/books")
		gateway := all[0].GetGateway()
		gateway.Metadata.Name, gateway.Spec.Selector = zone, map[string]string{"zone": zone}
		parents = append(parents, &weirv1.ParentRef{Name: zone})
		if len(rs) == 0 {
			rs = all[1:]
		}
		rs = append(rs, all[0])
	}
	for _, r := range rs {
		if r.GetRoute() != nil {
			r.GetRoute().Spec.ParentRefs = parents
		}
	}
	meta := func(name string) *weirv1.Metadata { return &weirv1.Metadata{Name: name} }
	return append(rs,
		resource.Wrap(&weirv1.Api{Metadata: meta("books"), Spec: &weirv1.ApiSpec{Version: "v1", State: weirv1.ApiSpec_PUBLISHED,
			TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "books"}}, Authentication: &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{}}}}),
		resource.Wrap(&weirv1.Plan{Metadata: meta("free"), Spec: &weirv1.PlanSpec{Apis: []string{"books"}}}),
		resource.Wrap(&weirv1.App{Metadata: meta("demo"), Spec: &weirv1.AppSpec{Organization: "acme"}}),
		resource.Wrap(&weirv1.Subscription{Metadata: meta("demo-free"), Spec: &weirv1.SubscriptionSpec{App: "demo", Plan: "free"}}))
}

func createKey(t *testing.T, api weirv1connect.AdminServiceClient) *weirv1.CreateCredentialResponse {
	t.Helper()
	made, err := api.CreateCredential(t.Context(), &weirv1.CreateCredentialRequest{App: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// requireSoon waits until the gateways answer a key at a path so. What is asked of the system is a
// second; a slow machine has more.
func requireSoon(t *testing.T, gateways map[string]string, path, key string, want int) {
	t.Helper()
	for zone, gateway := range gateways {
		status, body := 0, ""
		for limit := time.Now().Add(patience); status != want; time.Sleep(10 * time.Millisecond) {
			if status, body = ask(t, "http://"+gateway+path, key); status != want && time.Now().After(limit) {
				t.Fatalf("zone %s answers the key with %d %s, want %d", zone, status, body, want)
			}
		}
	}
}

// A key is good at every edge, until it is revoked at every edge. What is true of keys
// stays so while the servers are gone, even for an edge that starts then.
func TestKeysAtTwoEdges(t *testing.T) {
	serverDir, address, upstream := t.TempDir(), freeport.Address(t), newUpstream(t)
	gateways := map[string]string{"a": freeport.Address(t), "b": freeport.Address(t)}
	server := run(t, serverConfig(t, serverDir, address)).ready()
	api := adminAPI(t, serverDir)
	edges, configs := map[string]*running{}, map[string]Config{}
	for zone := range gateways {
		c := edgeConfig(t.TempDir(), address, joinToken(t, api))
		c.Edge.Name, c.Edge.Labels = "edge-"+zone, map[string]string{"zone": zone}
		configs[zone], edges[zone] = c, run(t, c).ready()
	}
	apply(t, api, keyedShop(t, upstream, gateways)...)
	requireSoon(t, gateways, "/books", "", 401)
	kept, lost := createKey(t, api), createKey(t, api)
	requireSoon(t, gateways, "/books", kept.GetKey(), 200)
	requireSoon(t, gateways, "/books", lost.GetKey(), 200)

	ref := resource.Of(resource.Wrap(lost.GetCredential()))
	gone, err := api.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{ref.Proto()}})
	if err != nil {
		t.Fatal(err)
	}
	// From the moment on at which the edges acknowledge it, the key is refused.
	if wait, err := api.WaitRevision(t.Context(), &weirv1.WaitRevisionRequest{Revision: gone.GetRevision()}); err != nil || !wait.GetDone() {
		t.Fatalf("not accepted: %v, %v", wait.GetProxies(), err)
	}
	for zone, gateway := range gateways {
		if status, body := ask(t, "http://"+gateway+"/books", lost.GetKey()); status != 401 || !strings.Contains(body, "api_key_unknown") {
			t.Errorf("zone %s answers a revoked key with %d %s", zone, status, body)
		}
	}
	requireSoon(t, gateways, "/books", kept.GetKey(), 200)

	server.stop()
	edges["b"].stop()
	offline := configs["b"]
	edge := *offline.Edge
	edge.Token = ""
	offline.Edge = &edge
	run(t, offline).ready()
	requireSoon(t, gateways, "/books", kept.GetKey(), 200)
	requireSoon(t, gateways, "/books", lost.GetKey(), 401)
	requireSoon(t, gateways, "/books", "", 401)

	run(t, serverConfig(t, serverDir, address)).ready()
	api = adminAPI(t, serverDir)
	requireSoon(t, gateways, "/books", createKey(t, api).GetKey(), 200)
	suspended := resource.Wrap(&weirv1.Subscription{Metadata: &weirv1.Metadata{Name: "demo-free"},
		Spec: &weirv1.SubscriptionSpec{App: "demo", Plan: "free", State: weirv1.SubscriptionSpec_SUSPENDED}})
	if _, err := api.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{suspended}}); err != nil {
		t.Fatal(err)
	}
	requireSoon(t, gateways, "/books", kept.GetKey(), 403)
}
