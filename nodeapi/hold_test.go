package nodeapi

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// A client that is held is there for the servers, and leaves its files to the one that
// follows, which goes on from them.
func TestAClientThatIsHeld(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := newEdge(t, node, dir, nil, c.address)
	ahead := make(chan uint64, 8)
	e.client.cfg.Ahead = func(u Update) { ahead <- u.Revision }
	e.run()
	requireUpdate(t, e.next(), true, 1, []string{"Gateway public"}, nil)
	c.awaitAccepted("e1", 1)
	<-ahead

	e.client.Hold()
	before := files(t, dir)
	c.source.put(route("r", "public"))
	if at := <-ahead; at != 2 {
		t.Errorf("what does not wait came at revision %d", at)
	}
	if s := c.await("e1", func(*weirv1.ProxyStatus) bool { return true }); !s.GetConnected() || s.GetRevision() != 1 {
		t.Errorf("the server knows of %v", s)
	}
	if got := e.names(); len(got) != 1 {
		t.Errorf("it has taken in %v", got)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("it has written: %s", diff)
	}

	next := startEdge(t, node, dir, nil, c.address)
	requireUpdate(t, next.next(), true, 1, []string{"Gateway public"}, nil)
	requireUpdate(t, next.next(), false, 2, []string{"Route r"}, nil)
	c.awaitAccepted("e1", 2)
	e.client.Hold() // is so already
	stream := func(e *edge) *link {
		e.client.mu.Lock()
		defer e.client.mu.Unlock()
		return e.client.live
	}
	for limit := time.Now().Add(patience); stream(e) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it streams beside the next one")
		}
	}
	was := stream(next)
	c.source.put(route("s", "public"))
	c.awaitAccepted("e1", 3)
	e.stop()
	if stream(next) != was {
		t.Error("it has come between the next one and its server")
	}
	if got := e.names(); len(got) != 1 {
		t.Errorf("it has taken in %v", got)
	}
}

// What is being applied when the client is held does not hold that up, and is not what the
// next one begins with.
func TestAClientIsHeldWhileItApplies(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := newEdge(t, node, dir, nil, c.address)
	applying := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- e.client.Run(ctx, func(ctx context.Context, u Update) error {
			close(applying)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-applying
	e.client.Hold()
	if s := c.await("e1", func(*weirv1.ProxyStatus) bool { return true }); !s.GetConnected() || s.GetRevision() != 0 {
		t.Errorf("the server knows of %v", s)
	}
	cancel()
	<-ended
	if u := startEdge(t, node, dir, nil, c.address).next(); resource.Of(u.Puts[0]).Name != "public" {
		t.Errorf("the next one is sent %v", u)
	}
}

// A client that is held does not try again what was refused before, and writes nothing of
// what it is told of others: neither when its server comes back, nor while that is there.
func TestAClientThatIsHeldWritesNothing(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := newEdge(t, node, dir, nil, c.address)
	e.client.retryMin = time.Hour
	told := make(chan bool, 8)
	e.client.cfg.ShutOut = func(_ *weirv1.ShutOut, keep bool) { told <- keep }
	e.run()
	requireUpdate(t, e.next(), true, 1, []string{"Gateway public"}, nil)
	c.awaitAccepted("e1", 1)
	c.server.TellShutOut(oneShutOut(1))
	if keep := <-told; !keep {
		t.Error("what is told before is not to be kept")
	}
	e.setRefuse(errors.New("port is taken"))
	c.source.put(route("r", "public"))
	e.next()
	c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetRefusedReason() != "" })
	e.setRefuse(nil)

	e.client.Hold()
	before := files(t, dir)
	c.server.TellShutOut(oneShutOut(2))
	if keep := <-told; keep {
		t.Error("what is told after is to be kept")
	}
	c.stop()
	c.servers = func() ([]string, <-chan struct{}) { return []string{c.address, "127.0.0.1:1"}, nil }
	c.start()
	c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetConnected() && s.GetRefusedReason() != "" })
	c.server.TellShutOut(oneShutOut(3))
	if keep := <-told; keep { // it comes after the list of servers
		t.Error("what is told after is to be kept")
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("it has written: %s", diff)
	}
	if got := e.names(); len(got) != 1 {
		t.Errorf("it has taken in %v", got)
	}
	if err := e.client.journal.write(newHeld(), Update{Snapshot: true}); !errors.Is(err, errHeld) {
		t.Errorf("its journal is written: %v", err)
	}
}

// oneShutOut is one key, which is another for each number.
func oneShutOut(n byte) *weirv1.ShutOut {
	return &weirv1.ShutOut{Keys: []*weirv1.ShutOutKey{{Sha256: bytes.Repeat([]byte{n}, 32), Until: timestamppb.New(time.Now().Add(time.Hour))}}}
}

// A client that has no server is held as well.
func TestAClientWithoutServersIsHeld(t *testing.T) {
	c := startCluster(t)
	node := c.enrol(identity.RoleEdge, "e1")
	c.stop()
	e := startEdge(t, node, t.TempDir(), nil, c.address)
	e.client.Hold()
	e.stop()
}

// files is what a directory holds.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	held := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if content, err := os.ReadFile(path); err == nil {
			held[path] = string(content)
		}
	}
	return held
}
