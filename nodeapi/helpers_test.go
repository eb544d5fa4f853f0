package nodeapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 2 * time.Minute

// declared is a Source in memory.
type declared struct {
	mu        sync.Mutex
	revision  uint64
	resources map[resource.Ref]*weirv1.Resource
	changes   []Change
	blobs     map[string][]byte
	endless   string // the digest of a blob of zeros without an end
	wake      chan struct{}
}

func newDeclared() *declared {
	return &declared{resources: map[resource.Ref]*weirv1.Resource{}, blobs: map[string][]byte{}, wake: make(chan struct{})}
}

// put declares resources, and returns the revision at which they are.
func (d *declared) put(rs ...*weirv1.Resource) uint64 { return d.apply(rs, nil) }

func (d *declared) remove(refs ...resource.Ref) uint64 { return d.apply(nil, refs) }

func (d *declared) apply(puts []*weirv1.Resource, deletes []resource.Ref) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revision++
	c := Change{Revision: d.revision, Deletes: deletes}
	for _, r := range puts {
		r = proto.CloneOf(r)
		resource.Meta(r).Revision = d.revision
		d.resources[resource.Of(r)] = r
		c.Puts = append(c.Puts, r)
	}
	for _, ref := range deletes {
		delete(d.resources, ref)
	}
	d.changes = append(d.changes, c)
	close(d.wake)
	d.wake = make(chan struct{})
	return d.revision
}

func (d *declared) Watch(ctx context.Context, after uint64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		d.mu.Lock()
		reset := Change{Revision: d.revision, Reset: true}
		for _, r := range d.resources {
			reset.Puts = append(reset.Puts, r)
		}
		next := len(d.changes)
		d.mu.Unlock()
		if after == 0 && !yield(reset, nil) {
			return
		}
		if after != 0 {
			next = int(after)
		}
		for {
			d.mu.Lock()
			wake, due := d.wake, d.changes[next:]
			d.mu.Unlock()
			for _, c := range due {
				next++
				if !yield(c, nil) {
					return
				}
			}
			if len(due) > 0 {
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
				yield(Change{}, ctx.Err())
				return
			}
		}
	}
}

func (d *declared) Blob(digest string) io.Reader {
	d.mu.Lock()
	defer d.mu.Unlock()
	if digest == d.endless {
		return zeros{}
	}
	if content, ok := d.blobs[digest]; ok {
		return bytes.NewReader(content)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (d *declared) putBlob(data []byte) (digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := sha256.Sum256(data)
	digest = digestPrefix + hex.EncodeToString(sum[:])
	d.blobs[digest] = data
	return digest
}

func gateway(name string, selector map[string]string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.GatewaySpec{
		Selector: selector, Listeners: []*weirv1.Listener{{Name: "http", Port: 8080, Protocol: weirv1.Listener_HTTP}},
	}})
}

func route(name, gateway string, services ...string) *weirv1.Resource {
	spec := &weirv1.RouteSpec{ParentRefs: []*weirv1.ParentRef{{Name: gateway}}}
	for _, s := range services {
		spec.Rules = append(spec.Rules, &weirv1.RouteRule{BackendRefs: []*weirv1.BackendRef{{Name: s}}})
	}
	return resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
}

func service(name string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.ServiceSpec{
		Endpoints: []*weirv1.Endpoint{{Address: "127.0.0.1:1"}},
	}})
}

func attached(name, plugin string, targets ...*weirv1.TargetRef) *weirv1.Resource {
	return resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{Plugin: plugin, TargetRefs: targets}})
}

func plugin(name, digest string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PluginSpec{Digest: digest}})
}

func ref(kind, name string) resource.Ref {
	return resource.Ref{Kind: kind, Tenant: resource.DefaultTenant, Name: name}
}

// cluster is one server that can be stopped and started again.
type cluster struct {
	t         *testing.T
	source    *declared
	registrar *identity.Registrar
	node      *identity.Identity
	keyring   *identity.Keyring
	dialer    *nodeport.Dialer
	servers   func() ([]string, <-chan struct{})
	most      int
	leases    Leases
	usage     func(context.Context, string, *weirv1.ReportUsageRequest) error
	// sendTimeout is the server's; 0: as it is without.
	sendTimeout time.Duration

	server  *Server
	address string
	stop    func()
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.start()
	return c
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, source: newDeclared(), keyring: openKeyring(t, t.TempDir()), address: "127.0.0.1:0"}
	c.dialer = nodeport.NewDialer(nodeport.DialerConfig{Logger: logger(t)})
	t.Cleanup(c.dialer.Close)
	var err error
	if c.registrar, err = identity.OpenRegistrar(t.Context(), identitytest.NewRecords(), c.keyring, 0); err != nil {
		t.Fatal(err)
	}
	c.node = c.enrol(identity.RoleServer, "s1")
	return c
}

func openKeyring(t *testing.T, dir string) *identity.Keyring {
	t.Helper()
	k, err := identity.OpenKeyring(filepath.Join(dir, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *cluster) enrol(role identity.Role, name string) *identity.Identity {
	c.t.Helper()
	node, err := identity.Open(c.t.TempDir())
	if err != nil {
		c.t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	issued, err := c.registrar.Enrol(c.t.Context(), role, name, csr, identity.Names{})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := node.Install(issued); err != nil {
		c.t.Fatal(err)
	}
	return node
}

// start serves; after a stop, on the address it had before.
func (c *cluster) start() {
	c.t.Helper()
	port, err := nodeport.Listen(c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = port.Addr().String()
	c.server = NewServer(ServerConfig{
		Identity: c.node, Registrar: c.registrar, Source: c.source, Logger: logger(c.t),
		Servers: c.servers, MaxProxies: c.most, Leases: c.leases, Usage: c.usage,
	})
	if c.sendTimeout > 0 {
		c.server.sendTimeout = c.sendTimeout
	}
	port.Handle(c.server)
	cfg := nodeport.Config{Identity: c.node, Logger: logger(c.t), ResetKey: c.keyring.Derive("quic reset")}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func() error{
		func() error { return c.server.Run(ctx) },
		func() error { return port.Serve(ctx, cfg) },
	} {
		running.Go(func() {
			if err := run(); err != nil {
				c.t.Errorf("serve: %v", err)
			}
		})
	}
	c.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	c.t.Cleanup(c.stop)
}

// dial connects to the server until the test ends.
func (c *cluster) dial(trust nodeport.Trust) *link {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	l, err := dialLink(ctx, c.dialer, c.address, trust)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(l.Close)
	return l
}

func logger(t *testing.T) *slog.Logger {
	w := &untilCleanup{out: t.Output()}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// untilCleanup writes to a test's output while there is one: a port's last words
// may come later.
type untilCleanup struct {
	mu  sync.Mutex
	out io.Writer
}

func (u *untilCleanup) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out.Write(p)
}

func (u *untilCleanup) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out = io.Discard
}

// edge is a proxy that keeps what it accepts and refuses what it is told to.
type edge struct {
	t      *testing.T
	client *Client
	dir    string
	stop   func()

	updates chan Update // every update that came to apply

	mu     sync.Mutex
	refuse error
	holds  map[resource.Ref]*weirv1.Resource
}

func (c *cluster) startEdge(name string, labels map[string]string) *edge {
	c.t.Helper()
	return startEdge(c.t, c.enrol(identity.RoleEdge, name), c.t.TempDir(), labels, c.address)
}

func startEdge(t *testing.T, node *identity.Identity, dir string, labels map[string]string, servers ...string) *edge {
	t.Helper()
	e := newEdge(t, node, dir, labels, servers...)
	e.run()
	return e
}

func newEdge(t *testing.T, node *identity.Identity, dir string, labels map[string]string, servers ...string) *edge {
	t.Helper()
	client, err := NewClient(ClientConfig{
		Identity: node, Servers: servers, Dir: dir, Keyring: openKeyring(t, dir), Labels: labels, Version: "test", Logger: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.dialer.Close) // of one that is not run
	client.spread = 50 * time.Millisecond
	return &edge{t: t, client: client, dir: dir, updates: make(chan Update, 10_000), holds: map[resource.Ref]*weirv1.Resource{}}
}

func (e *edge) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.client.Run(ctx, e.apply) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			e.t.Errorf("run: %v", err)
		}
	})
	e.t.Cleanup(e.stop)
}

func (e *edge) apply(_ context.Context, u Update) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.updates <- u
	if e.refuse != nil {
		return e.refuse
	}
	if u.Snapshot {
		clear(e.holds)
	}
	for _, ref := range u.Deletes {
		delete(e.holds, ref)
	}
	for _, r := range u.Puts {
		e.holds[resource.Of(r)] = r
	}
	return nil
}

func (e *edge) setRefuse(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refuse = err
}

// next is the next update that came to apply.
func (e *edge) next() Update {
	e.t.Helper()
	select {
	case u := <-e.updates:
		return u
	case <-time.After(patience):
		e.t.Fatal("no update came")
		panic("unreachable")
	}
}

func (e *edge) names() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return names(e.holds)
}

// await waits until the server says of a proxy what is wanted.
func (c *cluster) await(name string, want func(*weirv1.ProxyStatus) bool) *weirv1.ProxyStatus {
	c.t.Helper()
	limit := time.After(patience)
	for {
		statuses, changed := c.server.Proxies().Statuses()
		for _, s := range statuses {
			if s.GetName() == name && want(s) {
				return s
			}
		}
		select {
		case <-changed:
		case <-limit:
			c.t.Fatalf("the proxies are %v", statuses)
		}
	}
}

func (c *cluster) awaitAccepted(name string, revision uint64) {
	c.t.Helper()
	c.await(name, func(s *weirv1.ProxyStatus) bool { return s.GetConnected() && s.GetRevision() == revision })
}

// arrived is a part of a frame as the other side reads it.
func arrived(t interface{ Fatal(...any) }, part *weirv1.StreamConfigResponse) *weirv1.StreamConfigResponse {
	raw, err := proto.Marshal(part)
	m := new(weirv1.StreamConfigResponse)
	if err == nil {
		err = proto.Unmarshal(raw, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}
