package node

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// A listener that an edge cannot open is told with what the edge has accepted, for
// as long as that is so.
func TestListenersThatAreNotServedAreTold(t *testing.T) {
	dir, address := t.TempDir(), freeport.Address(t)
	run(t, serverConfig(t, dir, address)).ready()
	api := adminAPI(t, dir)
	taken, err := net.Listen("tcp", freeport.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	gateway, upstream := freeport.Address(t), newUpstream(t)
	run(t, edgeConfig(t.TempDir(), address, joinToken(t, api)))
	apply(t, api, shop(t, gateway, upstream, "/books")...)
	awaitProblem(t, api, "")

	done, err := api.Apply(t.Context(), &weirv1.ApplyRequest{Resources: shop(t, taken.Addr().String(), upstream, "/books")})
	if err != nil {
		t.Fatal(err)
	}
	if p := awaitProblem(t, api, "address already in use"); p.GetRevision() < done.GetRevision() {
		t.Errorf("the rest is not in force: %v", p)
	}
	requireServes(t, gateway, "/books") // where it was
	taken.Close()
	awaitProblem(t, api, "")
	requireServes(t, taken.Addr().String(), "/books")
}

// trapping is a plugin whose proxy_on_request_headers is one instruction, unreachable.
func trapping() []byte {
	section := func(id byte, content ...byte) []byte { return append([]byte{id, byte(len(content))}, content...) }
	export := func(name string, kind, index byte) []byte {
		return append(append([]byte{byte(len(name))}, name...), kind, index)
	}
	const function, memory = 0, 2
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 3, 0x60, 0, 0, 0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f), // () → (), (i32 i32 i32) → i32, i32 → i32
		section(3, 3, 0, 1, 2),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{4}, export("memory", memory, 0), export("proxy_abi_version_0_2_1", function, 0), export("proxy_on_request_headers", function, 1), export("malloc", function, 2))...),
		section(10, 3, 2, 0, 0x0b, 3, 0, 0x00, 0x0b, 3, 0, 0x00, 0x0b))
}

// A policy that does little but trap is told of with what the edge has accepted.
func TestPoliciesThatDoLittleButFailAreTold(t *testing.T) {
	dir, address := t.TempDir(), freeport.Address(t)
	run(t, serverConfig(t, dir, address)).ready()
	api := adminAPI(t, dir)
	gateway, upstream := freeport.Address(t), newUpstream(t)
	edge := edgeConfig(t.TempDir(), address, joinToken(t, api))
	run(t, edge)
	awaitConnected(t, api, edge.Edge.Name)
	apply(t, api, shop(t, gateway, upstream, "/books")...)
	requireServes(t, gateway, "/books")
	if _, err := api.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "bad", Module: trapping()}); err != nil {
		t.Fatal(err)
	}
	policy := &weirv1.Policy{Metadata: &weirv1.Metadata{Name: "worse"}, Spec: &weirv1.PolicySpec{
		Plugin: "bad", TargetRefs: []*weirv1.TargetRef{{Kind: resource.KindTenant}}}}
	apply(t, api, resource.Wrap(policy))
	asking, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for asking.Err() == nil {
			if answer, err := http.Get("http://" + gateway + "/books"); err == nil {
				answer.Body.Close()
			}
		}
	}()
	p := awaitProblem(t, api, "policy default/worse of plugin bad does little but fail")
	if !strings.Contains(p.GetProblem(), "proxy_on_request_headers trapped: unreachable") {
		t.Errorf("told: %s", p.GetProblem())
	}
	stop()
	<-done
	if _, err := api.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Policy", Name: "worse"}}}); err != nil {
		t.Fatal(err)
	}
	awaitProblem(t, api, "")
	requireServes(t, gateway, "/books")
}

// awaitProblem waits until the edge is current and has, or has not, a problem.
func awaitProblem(t *testing.T, api weirv1connect.AdminServiceClient, want string) *weirv1.ProxyStatus {
	t.Helper()
	var last *weirv1.ProxyStatus
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		status, err := api.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status.GetProxies() {
			last = p
			if p.GetConnected() && p.GetRefusedRevision() == 0 && p.GetRevision() > 0 &&
				(want == "") == (p.GetProblem() == "") && strings.Contains(p.GetProblem(), want) {
				return p
			}
		}
	}
	t.Fatalf("it is not told: %v", last)
	return nil
}
