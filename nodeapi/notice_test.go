package nodeapi

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Proxies are told who is shut out when they come and when that changes, and those of an
// earlier version, which would take it for a change that empties them, are not.
func TestProxiesAreToldWhoIsShutOut(t *testing.T) {
	c := startCluster(t)
	keys := func(n int) *weirv1.ShutOut {
		m := new(weirv1.ShutOut)
		for i := range n {
			m.Keys = append(m.Keys, &weirv1.ShutOutKey{Sha256: make([]byte, 32-i), Until: timestamppb.New(time.Unix(int64(i), 0))})
		}
		return m
	}
	c.source.put(gateway("public", nil))
	earlier := c.startEdge("earlier", nil)
	requireUpdate(t, earlier.next(), true, 1, []string{"Gateway public"}, nil)
	c.server.TellShutOut(keys(1))

	dir, told := t.TempDir(), make(chan *weirv1.ShutOut, 10)
	client, err := NewClient(ClientConfig{Identity: c.enrol(identity.RoleEdge, "e1"), Servers: []string{c.address}, Dir: dir, Keyring: openKeyring(t, dir),
		Logger: logger(t), ShutOut: func(m *weirv1.ShutOut, _ bool) { told <- m }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx, func(context.Context, Update) error { return nil }) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	for _, n := range []int{1, 2, 0, 3} {
		c.server.TellShutOut(keys(n))
		c.server.TellShutOut(keys(n)) // no news
		select {
		case got := <-told:
			if !proto.Equal(got, keys(n)) {
				t.Fatalf("told %v, want %v", got, keys(n))
			}
		case <-time.After(patience):
			t.Fatalf("nobody tells of %d", n)
		}
	}
	c.awaitAccepted("earlier", c.source.put(gateway("other", nil)))
	requireUpdate(t, earlier.next(), false, 2, []string{"Gateway other"}, nil)
}
