package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/relay"
)

func refs(u Update) (puts, deletes []string) {
	for _, r := range u.Puts {
		puts = append(puts, resource.Of(r).String())
	}
	for _, ref := range u.Deletes {
		deletes = append(deletes, ref.String())
	}
	return puts, deletes
}

func requireUpdate(t *testing.T, u Update, snapshot bool, revision uint64, puts, deletes []string) {
	t.Helper()
	gotPuts, gotDeletes := refs(u)
	if u.Snapshot != snapshot || u.Revision != revision || !slices.Equal(gotPuts, puts) || !slices.Equal(gotDeletes, deletes) {
		t.Fatalf("update to %d (snapshot %v) puts %v, deletes %v; want %d (%v), %v, %v",
			u.Revision, u.Snapshot, gotPuts, gotDeletes, revision, snapshot, puts, deletes)
	}
}

func TestProxyFollowsWhatIsDeclared(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil), gateway("inner", map[string]string{"zone": "inner"}))
	e := c.startEdge("e1", map[string]string{"zone": "outer"})
	requireUpdate(t, e.next(), true, 1, []string{"Gateway public"}, nil)
	c.awaitAccepted("e1", 1)

	c.source.put(route("r", "public", "books"), service("books"))
	requireUpdate(t, e.next(), false, 2, []string{"Route r", "Service books"}, nil)
	c.awaitAccepted("e1", 2)

	// Not for this proxy; it answers for the revision all the same.
	c.source.put(route("other", "inner", "books"))
	c.awaitAccepted("e1", 3)

	c.source.remove(ref("Route", "r"))
	requireUpdate(t, e.next(), false, 4, nil, []string{"Route r", "Service books"})
	status := c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetRevision() == 4 })
	want := &weirv1.ProxyStatus{Name: "e1", Labels: map[string]string{"zone": "outer"}, Connected: true, Revision: 4, Version: "test"}
	if status.GetAddress() == "" || status.GetLastSeen() == nil {
		t.Errorf("the status has no address or time: %v", status)
	}
	if status.GetName() != want.GetName() || !cmp.Equal(status.GetLabels(), want.GetLabels()) || status.GetVersion() != want.GetVersion() {
		t.Errorf("the status is %v", status)
	}
	e.stop()
	c.await("e1", func(s *weirv1.ProxyStatus) bool { return !s.GetConnected() && s.GetRevision() == 4 })
}

func TestProxyOfAnEmptyCluster(t *testing.T) {
	c := startCluster(t)
	e := c.startEdge("e1", nil)
	requireUpdate(t, e.next(), true, 0, nil, nil)
	c.source.put(gateway("public", nil))
	if u := e.next(); u.Revision != 1 || len(u.Puts) != 1 {
		t.Fatalf("got %v", u)
	}
	c.awaitAccepted("e1", 1)
}

// What was refused is kept in mind, is not sent again, and comes into force
// with the change that mends it.
func TestRefusedRevisionStaysOut(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	e := c.startEdge("e1", nil)
	e.next()
	c.awaitAccepted("e1", 1)

	e.setRefuse(errors.New("route bad does not compile"))
	c.source.put(route("bad", "public"))
	requireUpdate(t, e.next(), false, 2, []string{"Route bad"}, nil)
	refused := func(revision uint64) func(*weirv1.ProxyStatus) bool {
		return func(s *weirv1.ProxyStatus) bool {
			return s.GetRevision() == 1 && s.GetRefusedRevision() == revision && s.GetRefusedReason() == "route bad does not compile"
		}
	}
	c.await("e1", refused(2))

	c.source.put(service("books")) // nothing to this proxy; still it does not serve it
	c.await("e1", refused(3))

	// A new stream does not bring it again, but the server learns of it again.
	sent := c.server.hub
	c.stop()
	c.start()
	if sent == c.server.hub {
		t.Fatal("the server did not start anew")
	}
	c.await("e1", refused(3))

	e.setRefuse(nil)
	c.source.put(route("good", "public"))
	c.awaitAccepted("e1", 4)
	if diff := cmp.Diff([]string{"Gateway public", "Route bad", "Route good"}, e.names()); diff != "" {
		t.Fatal(diff)
	}
	for len(e.updates) > 0 {
		if u := e.next(); u.Snapshot {
			t.Fatalf("a snapshot was sent: %v", u)
		}
	}
}

// A refusal for a passing reason heals without another change.
func TestRefusedRevisionIsTriedAgain(t *testing.T) {
	c := startCluster(t)
	e := c.startEdge("e1", nil)
	e.next()
	e.setRefuse(errors.New("no module"))
	c.source.put(gateway("public", nil))
	e.next()
	c.await("e1", func(s *weirv1.ProxyStatus) bool { return s.GetRefusedRevision() == 1 })
	e.setRefuse(nil)
	c.awaitAccepted("e1", 1)
}

// However long the wait between two tries, it ends.
func TestRefusedRevisionIsTriedAgainBetweenHeartbeats(t *testing.T) {
	c := startCluster(t)
	e := newEdge(t, c.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, c.address)
	e.client.heartbeat, e.client.retryMin = 10*time.Millisecond, 40*time.Millisecond
	e.setRefuse(errors.New("no module"))
	c.source.put(gateway("public", nil))
	e.run()
	for range 3 {
		requireUpdate(t, e.next(), true, 1, []string{"Gateway public"}, nil)
	}
	e.setRefuse(nil)
	c.awaitAccepted("e1", 1)
}

// A proxy that has lost its place waits for the snapshot: it does not try again
// what it refused before, mixed with what did not fit.
func TestLostProxyTriesNothing(t *testing.T) {
	tried := 0
	f := &follower{client: &Client{cfg: ClientConfig{Logger: logger(t)}}, held: newHeld(), again: make(chan time.Time, 1),
		apply: func(context.Context, Update) error { tried++; return nil }}
	f.held.refuse("no module")
	err := f.takeIn(t.Context(), clientStream{}, &received{from: 5, revision: 6}, newInbox())
	if !errors.Is(err, errGap) || f.again != nil || tried != 0 {
		t.Fatalf("got %v, tried %d times, will try again: %v", err, tried, f.again != nil)
	}
}

func TestProxyResumesAfterARestartOfTheServer(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	e := c.startEdge("e1", nil)
	e.next()
	c.awaitAccepted("e1", 1)
	c.stop()
	c.start()
	c.awaitAccepted("e1", 1)
	c.source.put(route("r", "public"))
	requireUpdate(t, e.next(), false, 2, []string{"Route r"}, nil)

	// What changed while no server was there is not known to the new one as a
	// change: it takes a snapshot.
	c.awaitAccepted("e1", 2)
	c.stop()
	c.source.put(route("s", "public"))
	c.start()
	requireUpdate(t, e.next(), true, 3, []string{"Gateway public", "Route r", "Route s"}, nil)
	c.awaitAccepted("e1", 3)
}

// A server that is killed says no good-bye. When it is back, the proxy's next
// packet tells it so.
func TestProxyNoticesThatItsServerWasKilled(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far := c.address
	line := relay.UDP(t, 1, socket, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", far)
	})
	e := startEdge(t, c.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, line.Addr().String())
	e.next()
	c.awaitAccepted("e1", 1)
	line.Set(relay.Conditions{Drop: 1})
	c.stop()
	c.start()
	line.Set(relay.Conditions{})
	c.awaitAccepted("e1", 1)
}

// A proxy that reconnects to a server that has been there all the time is sent
// what it missed, and no more.
func TestProxyResumesByDeltas(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := startEdge(t, node, dir, nil, c.address)
	e.next()
	c.awaitAccepted("e1", 1)
	e.stop()
	c.source.put(route("r", "public"))
	again := startEdge(t, node, dir, nil, c.address)
	requireUpdate(t, again.next(), true, 1, []string{"Gateway public"}, nil) // from disk
	requireUpdate(t, again.next(), false, 2, []string{"Route r"}, nil)
	c.awaitAccepted("e1", 2)
}

func TestProxyBootsFromDiskWithNoServer(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := startEdge(t, node, dir, nil, c.address)
	e.next()
	c.source.put(route("r", "public"))
	e.next()
	c.awaitAccepted("e1", 2)
	e.stop()
	c.stop()

	alone := startEdge(t, node, dir, nil, c.address)
	requireUpdate(t, alone.next(), true, 2, []string{"Gateway public", "Route r"}, nil)

	c.source.put(route("s", "public"))
	c.start()
	c.awaitAccepted("e1", 3)
	if diff := cmp.Diff([]string{"Gateway public", "Route r", "Route s"}, alone.names()); diff != "" {
		t.Fatal(diff)
	}
}

// What is on disk may be refused for a passing reason, such as a port that the
// process before it still holds. It is tried again, server or no server.
func TestConfigurationFromDiskIsTriedAgain(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	node, dir := c.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := startEdge(t, node, dir, nil, c.address)
	c.awaitAccepted("e1", 1)
	e.stop()
	c.stop()
	client := e.client.cfg
	client.Servers = []string{"127.0.0.1:0"} // fails at once
	again, err := NewClient(client)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tries := 0
	if err := again.Run(ctx, func(_ context.Context, u Update) error {
		requireUpdate(t, u, true, 1, []string{"Gateway public"}, nil)
		if tries++; tries < 3 {
			return errors.New("address already in use")
		}
		cancel()
		return nil
	}); !errors.Is(err, context.Canceled) || tries != 3 {
		t.Fatalf("%d tries, %v", tries, err)
	}
}

// A proxy that reads nothing falls out of the history. It holds up nobody, and
// when it reads again it gets a snapshot and is up to date.
func TestSlowProxyFallsOut(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	slow, quick := c.startEdge("slow", nil), c.startEdge("quick", nil)
	c.awaitAccepted("slow", 1)
	c.awaitAccepted("quick", 1)
	slow.mu.Lock() // apply does not return
	var last uint64
	for i := range 60 {
		r := route(fmt.Sprintf("r%d", i%5), "public")
		resource.Meta(r).Annotations = map[string]string{"noise": noise(i, 400_000)}
		last = c.source.put(r)
		c.awaitAccepted("quick", last)
	}
	if s := c.await("slow", func(*weirv1.ProxyStatus) bool { return true }); s.GetRevision() >= last {
		t.Fatal("the slow proxy was not slow")
	}
	slow.mu.Unlock()
	c.awaitAccepted("slow", last)
	if diff := cmp.Diff(quick.names(), slow.names()); diff != "" {
		t.Fatal(diff)
	}
}

func TestProxyGoesToAnotherServer(t *testing.T) {
	a := startCluster(t)
	a.source.put(gateway("public", nil))
	b := &cluster{t: t, source: a.source, registrar: a.registrar, keyring: openKeyring(t, t.TempDir()), address: "127.0.0.1:0"}
	b.node = b.enrol(identity.RoleServer, "s2")
	b.start()
	e := startEdge(t, a.enrol(identity.RoleEdge, "e1"), t.TempDir(), nil, a.address, b.address)
	e.next()
	first, second := a, b
	if statuses, _ := b.server.Proxies().Statuses(); len(statuses) > 0 {
		first, second = b, a
	}
	first.awaitAccepted("e1", 1)
	first.stop()
	second.awaitAccepted("e1", 1)
	a.source.put(route("r", "public"))
	requireUpdate(t, e.next(), false, 2, []string{"Route r"}, nil)
	second.awaitAccepted("e1", 2)
}

func TestNewerStreamOfTheSameProxyWins(t *testing.T) {
	c := startCluster(t)
	node := c.enrol(identity.RoleEdge, "e1")
	old := subscribe(t, c, node, &weirv1.Subscribe{})
	if _, err := old.Receive(); err != nil {
		t.Fatal(err)
	}
	newer := subscribe(t, c, node, &weirv1.Subscribe{})
	if _, err := newer.Receive(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Receive(); err == nil || !strings.Contains(err.Error(), "newer stream") {
		t.Fatalf("the old stream ended with %v", err)
	}
	c.source.put(gateway("public", nil))
	if m, err := newer.Receive(); err != nil || m.GetRevision() != 1 {
		t.Fatalf("the newer stream got %v, %v", m, err)
	}
}

// subscribe opens a stream by hand; without sub, with another message.
func subscribe(t *testing.T, c *cluster, node *identity.Identity, sub *weirv1.Subscribe) weirv1connect.NodeServiceStreamConfigClientStream {
	t.Helper()
	l := c.dial(node.ClientTLS)
	stream, err := l.api.StreamConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	first := &weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Ack{}}
	if sub != nil {
		first.Message = &weirv1.StreamConfigRequest_Subscribe{Subscribe: sub}
	}
	// A server that refuses may do so before it has read: Receive tells why.
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return stream
}

func TestSubscribeRefuses(t *testing.T) {
	c := startCluster(t)
	edge, server := c.enrol(identity.RoleEdge, "e1"), c.enrol(identity.RoleServer, "s9")
	many := map[string]string{}
	for i := range maxLabels + 1 {
		many[fmt.Sprint(i)] = "x"
	}
	for name, tc := range map[string]struct {
		node *identity.Identity
		sub  *weirv1.Subscribe
		want string
	}{
		"a server":          {server, &weirv1.Subscribe{}, "is no proxy"},
		"no Subscribe":      {edge, nil, "must be Subscribe"},
		"too many labels":   {edge, &weirv1.Subscribe{Labels: many}, "labels"},
		"a broken label":    {edge, &weirv1.Subscribe{Labels: map[string]string{"a": "b\nc=d"}}, "no label holds"},
		"half a digest":     {edge, &weirv1.Subscribe{Revision: 1, Digest: []byte{1}}, "digest"},
		"an endless string": {edge, &weirv1.Subscribe{Version: strings.Repeat("v", 1000)}, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := subscribe(t, c, tc.node, tc.sub).Receive(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// A thousand frames are walked by streams that share them.
func TestProxiesOfOneScopeShareFrames(t *testing.T) {
	c := startCluster(t)
	for i := range 4 {
		c.startEdge(fmt.Sprintf("e%d", i), map[string]string{"zone": "a"})
	}
	for i := range 4 {
		c.await(fmt.Sprintf("e%d", i), func(s *weirv1.ProxyStatus) bool { return s.GetConnected() })
	}
	var last uint64
	for i := range 50 {
		last = c.source.put(gateway(fmt.Sprintf("g%d", i), nil))
	}
	for i := range 4 {
		c.awaitAccepted(fmt.Sprintf("e%d", i), last)
	}
	c.server.hub.mu.Lock()
	defer c.server.hub.mu.Unlock()
	if n := len(c.server.hub.scopes); n != 1 {
		t.Fatalf("%d scopes for equal labels", n)
	}
}
