package node

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
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
