package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"go.uber.org/goleak"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

func TestMain(m *testing.M) {
	// The ACME authority of tests has no end.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 2 * time.Minute

// running is a process of a test.
type running struct {
	t    testing.TB
	end  context.CancelFunc
	done chan struct{}
	err  error
	out  *output
}

// output tells when a line has come.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	ready chan struct{}
	once  sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	if strings.Contains(o.text.String(), readyLine+"\n") {
		o.once.Do(func() { close(o.ready) })
	}
	return n, err
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run starts a process; it stops with the test, unless it did before.
func run(t testing.TB, cfg Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, end: cancel, done: make(chan struct{}), out: &output{ready: make(chan struct{})}}
	cfg.Out, cfg.Version = r.out, "test"
	if cfg.Hints == nil {
		cfg.Hints = io.Discard
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	go func() {
		defer close(r.done)
		r.err = Run(ctx, cfg)
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *running) ready() *running {
	r.t.Helper()
	select {
	case <-r.out.ready:
	case <-r.done:
		r.t.Fatalf("it ended: %v", r.err)
	case <-time.After(patience):
		r.t.Fatal("it does not become ready")
	}
	return r
}

// stop ends the process as a signal would.
func (r *running) stop() {
	r.t.Helper()
	r.end()
	<-r.done
	if r.err != nil {
		r.t.Errorf("it ended with %v", r.err)
	}
	if got := r.out.String(); got != readyLine+"\n" && got != "" {
		r.t.Errorf("it printed %q", got)
	}
	r.err = nil // said once
}

// failed waits for the process to end by itself, with an error that has want.
func (r *running) failed(want string) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
	if r.err == nil || !strings.Contains(r.err.Error(), want) {
		r.t.Errorf("it ended with %v, want %q", r.err, want)
	}
	r.err = nil
}

func serverConfig(t testing.TB, dir, node string) Config {
	return Config{Data: dir, Server: &ServerConfig{Name: "a", Node: node, Admin: "127.0.0.1:0", Bootstrap: true}}
}

func edgeConfig(dir, server, token string) Config {
	return Config{Data: dir, Edge: &EdgeConfig{Name: "e1", Servers: []string{server}, Token: token, Labels: map[string]string{"zone": "a"}}}
}

// adminAPI speaks to a server as its admin.env says.
func adminAPI(t testing.TB, data string) weirv1connect.AdminServiceClient {
	t.Helper()
	return weirv1connect.NewAdminServiceClient(adminClient(t, data))
}

func adminClient(t testing.TB, data string) *connect.Client {
	t.Helper()
	env, config := adminAccess(t, data)
	return dialClient(t, "https://"+env["WEIR_ADMIN"], env["WEIR_TOKEN"], config)
}

// adminAccess is what a server's admin.env says, and whom to trust by it.
func adminAccess(t testing.TB, data string) (map[string]string, *tls.Config) {
	t.Helper()
	env, err := readAdminEnv(filepath.Join(data, "admin.env"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(env["WEIR_CA"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("WEIR_CA holds no certificate")
	}
	return env, &tls.Config{RootCAs: roots}
}

func dial(t testing.TB, url, token string, config *tls.Config) weirv1connect.AdminServiceClient {
	t.Helper()
	return weirv1connect.NewAdminServiceClient(dialClient(t, url, token, config))
}

func dialClient(t testing.TB, url, token string, config *tls.Config) *connect.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return connect.NewClient(connecthttp.NewTransport(bearer{token, transport}, url))
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) Do(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

func joinToken(t *testing.T, api weirv1connect.AdminServiceClient) string {
	t.Helper()
	m, err := api.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE})
	if err != nil {
		t.Fatal(err)
	}
	return m.GetToken()
}

// apply declares resources and waits until all proxies have accepted them.
func apply(t *testing.T, api weirv1connect.AdminServiceClient, rs ...*weirv1.Resource) {
	t.Helper()
	done, err := api.Apply(t.Context(), &weirv1.ApplyRequest{Resources: rs})
	if err != nil {
		t.Fatal(err)
	}
	wait, err := api.WaitRevision(t.Context(), &weirv1.WaitRevisionRequest{Revision: done.GetRevision()})
	if err != nil || !wait.GetDone() {
		t.Fatalf("not accepted: %v, %v", wait.GetProxies(), err)
	}
}

// shop is a gateway at an address, and a route to an upstream for each path.
func shop(t *testing.T, listen string, upstream *httptest.Server, paths ...string) []*weirv1.Resource {
	t.Helper()
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	rs := []*weirv1.Resource{
		resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
			Selector:  map[string]string{"zone": "a"},
			Listeners: []*weirv1.Listener{{Name: "http", Port: uint32(number), Address: host, Protocol: weirv1.Listener_HTTP}},
		}}),
		resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "shop"}, Spec: &weirv1.ServiceSpec{
			Endpoints: []*weirv1.Endpoint{{Address: upstream.Listener.Addr().String()}},
		}}),
	}
	for _, path := range paths {
		rs = append(rs, resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: strings.Trim(path, "/")}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: "public"}},
			Rules: []*weirv1.RouteRule{{
				Matches:     []*weirv1.RouteMatch{{Path: &weirv1.PathMatch{Value: path}}},
				BackendRefs: []*weirv1.BackendRef{{Name: "shop"}},
			}},
		}}))
	}
	return rs
}

func newUpstream(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "you are at ", r.URL.Path) }))
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	return ask(t, url, "")
}

func requireServes(t *testing.T, gateway, path string) {
	t.Helper()
	if status, body := get(t, "http://"+gateway+path); status != 200 || body != "you are at "+path {
		t.Fatalf("%s: %d %q", path, status, body)
	}
}

func awaitConnected(t *testing.T, api weirv1connect.AdminServiceClient, name string) {
	t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		status, err := api.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status.GetProxies() {
			if p.GetName() == name && p.GetConnected() {
				return
			}
		}
	}
	t.Fatalf("%s does not connect", name)
}
