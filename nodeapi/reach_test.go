package nodeapi

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/relay"
)

// sibling is another server of the same cluster.
func (c *cluster) sibling(name string) *cluster {
	c.t.Helper()
	s := &cluster{
		t: c.t, source: c.source, registrar: c.registrar, keyring: openKeyring(c.t, c.t.TempDir()), dialer: c.dialer,
		address: "127.0.0.1:0", servers: c.servers, most: c.most,
	}
	s.node = s.enrol(identity.RoleServer, name)
	s.start()
	return s
}

// where is a list of servers that changes.
type where struct {
	mu      sync.Mutex
	list    []string
	changed chan struct{}
}

func (w *where) set(list ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = list
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
}

func (w *where) get() ([]string, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list, w.changed
}

// A proxy that is told where the servers are finds them again when those that
// it was configured with are gone for good, even after a restart of its own.
func TestProxyKeepsTheListOfServers(t *testing.T) {
	list := new(where)
	list.set()
	a := newCluster(t)
	a.servers = list.get
	a.start()
	b := a.sibling("s2")
	node, dir := a.enrol(identity.RoleEdge, "e1"), t.TempDir()
	e := startEdge(t, node, dir, nil, a.address)
	e.next()
	a.awaitAccepted("e1", 0)
	list.set(a.address, b.address) // while it streams
	for limit := time.After(patience); ; {
		if slices.Contains(e.client.roster.all(), b.address) {
			break
		}
		select {
		case <-limit:
			t.Fatalf("it knows %v", e.client.roster.all())
		case <-time.After(time.Millisecond):
		}
	}
	e.stop()
	a.stop()
	startEdge(t, node, dir, nil, a.address)
	b.awaitAccepted("e1", 0)
}

// A server that takes no more proxies sends one to another, and lets in those
// that it has.
func TestServerThatIsFull(t *testing.T) {
	a := newCluster(t)
	a.most = 1
	a.start()
	b := a.sibling("s2")
	for _, name := range []string{"e1", "e2"} {
		startEdge(t, a.enrol(identity.RoleEdge, name), t.TempDir(), nil, a.address, b.address).next()
	}
	for _, s := range []*cluster{a, b} {
		if statuses, _ := s.server.Proxies().Statuses(); len(statuses) != 1 {
			t.Errorf("a server has %v", statuses)
		}
	}
	third := a.enrol(identity.RoleEdge, "e3")
	f := &follower{client: newEdge(t, third, t.TempDir(), nil, a.address).client, held: newHeld()}
	_, err := f.session(t.Context(), t.Context(), a.dial(third.ClientTLS))
	after, full := retryAfter(err)
	if !full || after <= 0 || connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Fatalf("got %v, to come again after %v", err, after)
	}
}

// A place is free again once its proxy is gone, and the same proxy does not
// need a second one.
func TestPlacesAreGivenBack(t *testing.T) {
	p := newProxies(1)
	e1, e2 := identity.ID{Name: "e1"}, identity.ID{Name: "e2"}
	var ends []error
	connect := func(id identity.ID) *session {
		return p.connect(id, nil, &weirv1.Subscribe{}, "", func(why error) { ends = append(ends, why) })
	}
	first, second := connect(e1), connect(e1)
	if !slices.Equal(ends, []error{errSuperseded}) {
		t.Errorf("the older stream ended with %v", ends)
	}
	if first == nil || second == nil || connect(e2) != nil {
		t.Fatal("the count is wrong")
	}
	first.close() // superseded long ago
	if connect(e2) != nil {
		t.Fatal("a place was given back twice")
	}
	second.close()
	if connect(e2) == nil {
		t.Fatal("the place was not given back")
	}
}

// silence is an address where everything is taken and nothing answered.
func silence(t *testing.T) string {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err == nil {
		t.Cleanup(func() { tcp.Close() })
	}
	return udp.LocalAddr().String()
}

// A server that is silent keeps a proxy from the others for a moment only.
func TestSilentServerIsPassedBy(t *testing.T) {
	c := startCluster(t)
	dead := silence(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := dialAny(ctx, c.dialer, []string{dead, "127.0.0.1:1", c.address}, c.enrol(identity.RoleEdge, "e1").ClientTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.address != c.address {
		t.Fatalf("connected to %s", l.address)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := dialAny(short, c.dialer, []string{dead}, c.node.ClientTLS); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

// Where UDP is blocked all of the node API goes over TCP, and a stream returns
// to QUIC when UDP works again, without losing its place.
func TestWithoutUDP(t *testing.T) {
	c := startCluster(t)
	c.source.put(gateway("public", nil))
	digest := c.source.putBlob([]byte(noise(1, 2*blobChunk)))
	far := c.address
	to := func(network string) relay.Dial {
		return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, far) }
	}
	var udp net.PacketConn
	var tcp net.Listener
	for tcp == nil {
		var err error
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err != nil {
			udp.Close()
		}
	}
	relay.TCP(t, 1, tcp, to("tcp"))
	line := relay.UDP(t, 1, udp, to("udp"))
	line.Set(relay.Conditions{Drop: 1})

	d := nodeport.NewDialer(nodeport.DialerConfig{Logger: logger(t), HeadStart: 20 * time.Millisecond, RetryUDP: 20 * time.Millisecond})
	t.Cleanup(d.Close)
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	address := udp.LocalAddr().String()
	if err := Join(ctx, node, JoinConfig{
		Servers: []string{address}, Token: c.token(identity.RoleEdge), Role: identity.RoleEdge, Name: "e1", Logger: logger(t), Dialer: d,
	}); err != nil {
		t.Fatal(err)
	}
	e := newEdge(t, node, t.TempDir(), nil, address)
	e.client.dialer, e.client.cfg.Dialer, e.client.returnSpread = d, d, time.Millisecond
	e.run()
	e.next()
	c.awaitAccepted("e1", 1)
	if data, err := e.client.Blob(ctx, digest); err != nil || len(data) != 2*blobChunk {
		t.Fatalf("got %d bytes, %v", len(data), err)
	}
	e.client.mu.Lock()
	over := e.client.live.Over()
	e.client.mu.Unlock()
	if over != "TCP" {
		t.Fatalf("it streams over %s", over)
	}

	line.Set(relay.Conditions{})
	for limit := time.After(patience); ; {
		e.client.mu.Lock()
		back := e.client.live != nil && e.client.live.Over() == "QUIC"
		e.client.mu.Unlock()
		if back {
			break
		}
		select {
		case <-limit:
			t.Fatal("it never returns to QUIC")
		case <-time.After(time.Millisecond):
		}
	}
	c.source.put(route("r", "public"))
	requireUpdate(t, e.next(), false, 2, []string{"Route r"}, nil)
	c.awaitAccepted("e1", 2)
}

func TestPace(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	p := pace{spread: time.Nanosecond}
	if !p.wait(t.Context(), true, nil, 1) {
		t.Fatal("after a good stream")
	}
	for range 2 { // the others first
		if !p.wait(t.Context(), false, errFull(), 3) {
			t.Fatal("after a server that is full")
		}
	}
	if p.wait(ended, false, errFull(), 3) || p.refused != 0 {
		t.Fatal("after the last server that is full")
	}
	if p.wait(ended, false, errSilent, 3) {
		t.Fatal("it waits although its context has ended")
	}
}
