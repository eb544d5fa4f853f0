package node

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

func usageAPI(t *testing.T, data string) weirv1connect.UsageServiceClient {
	t.Helper()
	return weirv1connect.NewUsageServiceClient(adminClient(t, data))
}

// requireUsage waits until so many answers were counted.
func requireUsage(t *testing.T, api weirv1connect.UsageServiceClient, want uint64) {
	t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		m, err := api.ListUsage(t.Context(), &weirv1.ListUsageRequest{App: "demo"})
		if err != nil {
			t.Fatal(err)
		}
		got := uint64(0)
		for _, u := range m.GetUsage() {
			if got += u.GetCount(); u.GetSubscription() != "demo-free" || u.GetApi() != "books" || u.GetStatusClass() != "2xx" {
				t.Errorf("an odd row: %v", u)
			}
		}
		if got == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("usage is %d, want %d: %v", got, want, m.GetUsage())
		}
	}
}

// An edge that is stopped has reported all, and one that could not reports it when it
// runs again, or when the servers do.
func TestUsageOfAnEdgeThatStops(t *testing.T) {
	serverDir, edgeDir, address, listen := t.TempDir(), t.TempDir(), freeport.Address(t), freeport.Address(t)
	server := run(t, serverConfig(t, serverDir, address)).ready()
	api := adminAPI(t, serverDir)
	config := edgeConfig(edgeDir, address, joinToken(t, api))
	edge := run(t, config).ready()
	again := *config.Edge
	again.Token = ""
	config.Edge = &again

	gateways := map[string]string{"a": listen}
	apply(t, api, keyedShop(t, newUpstream(t), gateways)...)
	key := createKey(t, api).GetKey()
	requireSoon(t, gateways, "/books", key, 200) // which is one
	answered := uint64(1)
	call := func(n int) {
		t.Helper()
		for range n {
			if status, body := ask(t, "http://"+listen+"/books", key); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			answered++
		}
	}
	call(20)
	edge.stop()
	requireUsage(t, usageAPI(t, serverDir), answered)

	edge = run(t, config).ready()
	call(20)
	server.stop()
	call(20)
	edge.stop() // nobody takes its last report
	edge = run(t, config).ready()
	call(20)
	run(t, serverConfig(t, serverDir, address)).ready()
	requireUsage(t, usageAPI(t, serverDir), answered)
	edge.stop()
	if left, err := filepath.Glob(filepath.Join(edgeDir, "usage", "*.segment")); err != nil || len(left) > 0 {
		t.Errorf("left of what was reported: %v, %v", left, err)
	}
}
