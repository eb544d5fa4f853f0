package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forbearance ends a test that would otherwise hang. Nothing is decided by it.
const forbearance = 60 * time.Second

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), forbearance)
	t.Cleanup(cancel)
	return ctx
}

// diary is a log that can be asked.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
	out  io.Writer
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text.Write(p)
	return d.out.Write(p)
}

func (d *diary) count(text string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Count(d.text.String(), text)
}

// watched is a value with a channel that is closed when it changes.
type watched[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

func newWatched[T any](value T) *watched[T] {
	return &watched[T]{value: value, changed: make(chan struct{})}
}

func (w *watched[T]) get() (T, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.changed
}

func (w *watched[T]) set(value T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value = value
	close(w.changed)
	w.changed = make(chan struct{})
}

// cluster is servers that know one another.
type cluster struct {
	t         testing.TB
	registrar *identity.Registrar
	members   *watched[[]Member]
	dial      func(ctx context.Context, network, address string) (net.Conn, error) // nil: any way
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	keyring, err := identity.OpenKeyring(filepath.Join(t.TempDir(), "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	registrar, err := identity.OpenRegistrar(t.Context(), identitytest.NewRecords(), keyring, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t: t, registrar: registrar, members: newWatched([]Member(nil))}
}

func (c *cluster) node(role identity.Role, name string) *identity.Identity {
	c.t.Helper()
	node, err := identity.Open(c.t.TempDir())
	if err != nil {
		c.t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		c.t.Fatal(err)
	}
	issued, err := c.registrar.Enrol(context.Background(), role, name, csr, identity.Names{})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := node.Install(issued); err != nil {
		c.t.Fatal(err)
	}
	return node
}

// place says where a member is, to all.
func (c *cluster) place(name, address string) {
	now, _ := c.members.get()
	now = slices.DeleteFunc(slices.Clone(now), func(m Member) bool { return m.Name == name })
	if address != "" {
		now = append(now, Member{Name: name, Address: address})
	}
	c.members.set(now)
}

// server is a member that runs.
type server struct {
	t       testing.TB
	name    string
	node    *identity.Identity
	address string
	log     *diary
	dialer  *nodeport.Dialer
	fleet   *Fleet
	proxies *watched[[]*weirv1.ProxyStatus]
	stop    func()
}

// start begins a member, on a port of its own that all are told of.
func (c *cluster) start(name string, proxies ...*weirv1.ProxyStatus) *server {
	c.t.Helper()
	return c.startAs(c.node(identity.RoleServer, name), proxies...)
}

func (c *cluster) startAs(node *identity.Identity, proxies ...*weirv1.ProxyStatus) *server {
	c.t.Helper()
	s := &server{t: c.t, name: node.ID().Name, node: node, log: &diary{out: c.t.Output()}, proxies: newWatched(proxies)}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	port, err := nodeport.Listen("127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	s.address = port.Addr().String()
	s.dialer = nodeport.NewDialer(nodeport.DialerConfig{Logger: log, Dial: c.dial})
	s.fleet = New(Config{Identity: node, Dialer: s.dialer, Name: s.name, Members: c.members.get, Local: s.local, Logger: log})
	mux := http.NewServeMux()
	mux.Handle(s.fleet.Handler())
	port.Handle(mux)
	fleetDone, portDone := runs(s.fleet.Run), runs(func(ctx context.Context) error {
		return port.Serve(ctx, nodeport.Config{Identity: node, Logger: log})
	})
	s.stop = sync.OnceFunc(func() {
		for _, done := range []func() error{fleetDone, portDone} {
			if err := done(); err != nil {
				c.t.Error(err)
			}
		}
		s.dialer.Close()
	})
	c.t.Cleanup(s.stop)
	c.place(s.name, s.address)
	return s
}

// runs returns what ends it and waits for that.
func runs(f func(context.Context) error) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

func (s *server) local() (*weirv1.MemberReport, <-chan struct{}) {
	proxies, changed := s.proxies.get()
	return &weirv1.MemberReport{
		Member:       &weirv1.ClusterMember{Name: s.name, Address: s.address, State: weirv1.ClusterMember_FOLLOWER, Version: "v1"},
		AdminAddress: "admin-of-" + s.name, Proxies: proxies, DiskFree: 1, DiskSize: 2,
		NotAfter: timestamppb.New(s.node.NotAfter()),
	}, changed
}

// awaitProxies waits until all proxies are as described, each by text.
func (s *server) awaitProxies(want ...string) {
	s.t.Helper()
	limit := time.After(forbearance)
	for {
		statuses, changed := s.fleet.Statuses()
		got := texts(statuses)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			s.t.Fatalf("%s knows of %q, want %q", s.name, got, want)
		}
	}
}

// eventually looks at what has no channel.
func (s *server) eventually(what string, is func() bool) {
	s.t.Helper()
	for limit := time.Now().Add(forbearance); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			s.t.Fatalf("%s: never %s; it knows %+v", s.name, what, s.fleet.Reports())
		}
	}
}

// text is "name@revision", with a "-" before it when it is not connected.
func text(p *weirv1.ProxyStatus) string {
	sign := "-"
	if p.GetConnected() {
		sign = ""
	}
	return fmt.Sprintf("%s%s@%d", sign, p.GetName(), p.GetRevision())
}

func texts(list []*weirv1.ProxyStatus) (all []string) {
	for _, p := range list {
		all = append(all, text(p))
	}
	return all
}

func connected(name string, revision uint64) *weirv1.ProxyStatus {
	return &weirv1.ProxyStatus{Name: name, Connected: true, Revision: revision, Labels: map[string]string{"site": "a"}, LastSeen: timestamppb.Now()}
}

func away(name string, revision uint64, since time.Time) *weirv1.ProxyStatus {
	return &weirv1.ProxyStatus{Name: name, Revision: revision, LastSeen: timestamppb.New(since)}
}

func withoutCertificate(node *identity.Identity) nodeport.Trust {
	return func(protocols ...string) *tls.Config {
		config := node.ClientTLS(protocols...)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
		return config
	}
}
