package nodeport

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/identitytest"
	"github.com/weirmesh/weir/test/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 60 * time.Second

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// diary is a log that can be asked.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
	out  io.Writer
	news chan struct{} // closed at the next line
}

func newDiary(t testing.TB) *diary {
	d := &diary{out: t.Output(), news: make(chan struct{})}
	t.Cleanup(func() { // a port's last words may come later
		d.mu.Lock()
		defer d.mu.Unlock()
		d.out = io.Discard
	})
	return d
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text.Write(p)
	close(d.news)
	d.news = make(chan struct{})
	return d.out.Write(p)
}

func (d *diary) logger() *slog.Logger { return slog.New(slog.NewTextHandler(d, nil)) }

func (d *diary) count(text string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Count(d.text.String(), text)
}

func (d *diary) await(t testing.TB, text string) {
	t.Helper()
	d.awaitCount(t, text, 1)
}

func (d *diary) awaitCount(t testing.TB, text string, n int) {
	t.Helper()
	limit := time.After(patience)
	for {
		d.mu.Lock()
		news, got := d.news, strings.Count(d.text.String(), text)
		d.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-news:
		case <-limit:
			t.Fatalf("the log says %q %d times, want %d", text, got, n)
		}
	}
}

// cluster issues identities.
type cluster struct {
	t         testing.TB
	registrar *identity.Registrar
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
	return &cluster{t: t, registrar: registrar}
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

// server is a port with all that belongs to it.
type server struct {
	t       testing.TB
	node    *identity.Identity
	log     *diary
	port    *Port
	dialer  *Dialer
	members *Members
	address string
	failed  bool // on purpose
	stop    func()
}

var resetKey = [32]byte{1, 2, 3}

func (c *cluster) serve(name string) *server { return c.serveAt(name, "127.0.0.1:0") }

func (c *cluster) serveAt(name, address string) *server {
	c.t.Helper()
	node := c.node(identity.RoleServer, name)
	log := newDiary(c.t)
	port, err := Listen(address)
	if err != nil {
		c.t.Fatal(err)
	}
	port.Handle(http.HandlerFunc(echo))
	return startServer(c.t, port, Config{Identity: node}, log)
}

func startServer(t testing.TB, port *Port, cfg Config, log *diary) *server {
	s := &server{t: t, node: cfg.Identity, log: log, port: port, address: port.Addr().String()}
	s.dialer = NewDialer(DialerConfig{Logger: log.logger()})
	s.members = NewMembers(s.node, s.dialer)
	cfg.Logger, cfg.Members, cfg.ResetKey = log.logger(), s.members, resetKey
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- port.Serve(ctx, cfg) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; (err != nil) != s.failed {
			t.Errorf("serve: %v", err)
		}
		if err := s.members.Close(); err != nil {
			t.Errorf("close members: %v", err)
		}
		s.dialer.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// echo answers as it is spoken to, byte by byte, after a line that says over
// which protocol.
func echo(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	_, _ = io.WriteString(w, r.Proto+"\n")
	_ = rc.Flush()
	buf := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}

func newDialer(t testing.TB, log *diary, cfg DialerConfig) *Dialer {
	cfg.Logger = log.logger()
	d := NewDialer(cfg)
	t.Cleanup(d.Close)
	return d
}

func (c *cluster) link(d *Dialer, address string, node *identity.Identity) *Link {
	c.t.Helper()
	l, err := d.Link(bounded(c.t), address, node.ClientTLS)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(l.Close)
	return l
}

// call sends a request and returns what came back.
func call(t testing.TB, l *Link, body string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(bounded(t), "POST", "https://node/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := l.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	return string(got), err
}

func requireCall(t testing.TB, l *Link, want string) {
	t.Helper()
	if got, err := call(t, l, "hello"); err != nil || got != want+"\nhello" {
		t.Fatalf("got %q, %v, want %s", got, err, want)
	}
}

// detour is an address that leads to a server's, over UDP only while that is
// let through.
type detour struct {
	address string
	udp     *relay.UDPRelay
	tcp     *relay.TCPRelay
}

func newDetour(t testing.TB, far string) *detour {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			tcp.Close()
			continue
		}
		to := func(network string) relay.Dial {
			return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, far) }
		}
		return &detour{address: tcp.Addr().String(), udp: relay.UDP(t, 1, udp, to("udp")), tcp: relay.TCP(t, 1, tcp, to("tcp"))}
	}
	t.Fatal("no port is free in both UDP and TCP")
	return nil
}

func (d *detour) blockUDP()   { d.udp.Set(relay.Conditions{Drop: 1}) }
func (d *detour) unblockUDP() { d.udp.Set(relay.Conditions{}) }

// pair opens a stream from one to the other.
func pair(t testing.TB, from, to *server, address string) (near, far net.Conn) {
	t.Helper()
	near, err := from.members.Dial(bounded(t), address, to.node.ID().Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, member, err := to.members.Accept(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	if member != from.node.ID().Name {
		t.Fatalf("the stream is said to be from %q", member)
	}
	return near, far
}

func newRequest(t testing.TB, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(bounded(t), "POST", "https://node/", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
