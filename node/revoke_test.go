package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// held is a log that keeps whoever writes a line waiting there until it is let go.
type held struct {
	slog.Handler
	line       string
	begun, end chan struct{}
	once       *sync.Once
}

func (h held) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.line {
		h.once.Do(func() {
			close(h.begun)
			<-h.end
		})
	}
	return h.Handler.Handle(ctx, r)
}

func (h held) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

// A key that is revoked while an edge takes its time over an update is refused, also where
// the server that the update came from has gone meanwhile and come back.
func TestRevokedWhileAnUpdateIsAppliedAndTheServerWasAway(t *testing.T) {
	dir, address, upstream := t.TempDir(), freeport.Address(t), newUpstream(t)
	gateways := map[string]string{"a": freeport.Address(t)}
	server := run(t, serverConfig(t, dir, address)).ready()
	api := adminAPI(t, dir)
	edge := edgeConfig(t.TempDir(), address, joinToken(t, api))
	slow := held{slog.NewTextHandler(t.Output(), nil), "blob not read from disk", make(chan struct{}), make(chan struct{}), new(sync.Once)}
	edge.Logger = slog.New(slow)
	run(t, edge).ready()
	letGo := sync.OnceFunc(func() { close(slow.end) })
	t.Cleanup(letGo) // before the edge is waited for
	apply(t, api, keyedShop(t, upstream, gateways)...)
	key := createKey(t, api)
	requireSoon(t, gateways, "/books", key.GetKey(), 200)

	// It finds a module damaged on its disk, of which it says so while it compiles.
	sum := sha256.Sum256(trapping())
	blobs := filepath.Join(edge.Data, "blobs")
	err := os.MkdirAll(blobs, 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(blobs, hex.EncodeToString(sum[:])), []byte("damaged"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "bad", Module: trapping()}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{
		resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: "other"}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: "a"}}, Hostnames: []string{"other.example"}, Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: "shop"}}}}}}),
		resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "slow"}, Spec: &weirv1.PolicySpec{Plugin: "bad", TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "other"}}}}),
	}}); err != nil {
		t.Fatal(err)
	}
	<-slow.begun
	server.stop()
	run(t, serverConfig(t, dir, address)).ready()
	api = adminAPI(t, dir)
	ref := resource.Of(resource.Wrap(key.GetCredential()))
	gone, err := api.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{ref.Proto()}})
	if err != nil {
		t.Fatal(err)
	}
	requireSoon(t, gateways, "/books", key.GetKey(), 401)

	letGo()
	if wait, err := api.WaitRevision(t.Context(), &weirv1.WaitRevisionRequest{Revision: gone.GetRevision()}); err != nil || !wait.GetDone() {
		t.Fatalf("not accepted: %v, %v", wait.GetProxies(), err)
	}
	requireSoon(t, gateways, "/books", key.GetKey(), 401)
}
