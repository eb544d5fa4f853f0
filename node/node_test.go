package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 30 * time.Second

// running is a process of a test.
type running struct {
	t    *testing.T
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
func run(t *testing.T, cfg Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, end: cancel, done: make(chan struct{}), out: &output{ready: make(chan struct{})}}
	cfg.Out, cfg.Version = r.out, "test"
	if cfg.Hints == nil {
		cfg.Hints = io.Discard
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
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

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func serverConfig(t *testing.T, dir, node string) Config {
	return Config{Data: dir, Server: &ServerConfig{Name: "a", Node: node, Admin: "127.0.0.1:0"}}
}

func edgeConfig(dir, server, token string) Config {
	return Config{Data: dir, Edge: &EdgeConfig{Name: "e1", Servers: []string{server}, Token: token, Labels: map[string]string{"zone": "a"}}}
}

// adminAPI speaks to a server as its admin.env says.
func adminAPI(t *testing.T, data string) weirv1connect.AdminServiceClient {
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
	return dial(t, "https://"+env["WEIR_ADMIN"], env["WEIR_TOKEN"], &tls.Config{RootCAs: roots})
}

func dial(t *testing.T, url, token string, config *tls.Config) weirv1connect.AdminServiceClient {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return weirv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(bearer{token, transport}, url)))
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

// A server and an edge on their own: joining, serving, and each one's death.
func TestServerAndEdge(t *testing.T) {
	serverDir, edgeDir := t.TempDir(), t.TempDir()
	address, gateway, upstream := freeAddress(t), freeAddress(t), newUpstream(t)
	server := run(t, serverConfig(t, serverDir, address)).ready()
	api := adminAPI(t, serverDir)
	edge := run(t, edgeConfig(edgeDir, address, joinToken(t, api))).ready()

	apply(t, api, shop(t, gateway, upstream, "/books")...)
	requireServes(t, gateway, "/books")

	// The edge serves on without its server, and starts without it.
	server.stop()
	requireServes(t, gateway, "/books")
	edge.stop()
	edge = run(t, edgeConfig(edgeDir, address, "")).ready()
	requireServes(t, gateway, "/books")

	// The server comes back with all it knew, and the edge finds it.
	run(t, serverConfig(t, serverDir, address)).ready()
	api = adminAPI(t, serverDir)
	awaitConnected(t, api, "e1")
	apply(t, api, shop(t, gateway, upstream, "/books", "/orders")...)
	requireServes(t, gateway, "/orders")

	status, err := api.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
	if err != nil || status.GetLeader() != "a" || len(status.GetMembers()) != 1 || status.GetMembers()[0].GetRole() != weirv1.Member_VOTER {
		t.Fatalf("status %v, %v", status, err)
	}
	edge.stop()
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

func TestAdminAPIOfAServerWantsTLSAndAToken(t *testing.T) {
	dir := t.TempDir()
	run(t, serverConfig(t, dir, "127.0.0.1:0")).ready()
	env, err := readAdminEnv(filepath.Join(dir, "admin.env"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(env["WEIR_CA"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ask := func(url, token string, config *tls.Config) error {
		_, err := dial(t, url, token, config).GetStatus(t.Context(), &weirv1.GetStatusRequest{})
		return err
	}
	url := "https://" + env["WEIR_ADMIN"]
	if err := ask(url, env["WEIR_TOKEN"], &tls.Config{RootCAs: roots}); err != nil {
		t.Errorf("with what admin.env says: %v", err)
	}
	for name, token := range map[string]string{"no token": "", "a made-up token": env["WEIR_TOKEN"] + "x"} {
		if err := ask(url, token, &tls.Config{RootCAs: roots}); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ask(url, env["WEIR_TOKEN"], &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
		t.Error("without the authority's root the server was believed")
	}
	if err := ask("http://"+env["WEIR_ADMIN"], env["WEIR_TOKEN"], nil); err == nil {
		t.Error("it answered in the clear")
	}
}

func TestAdminEnv(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.env")
	start := func() { run(t, serverConfig(t, dir, "127.0.0.1:0")).ready().stop() }
	read := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	start()
	first, err := readAdminEnv(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if !filepath.IsAbs(first["WEIR_CA"]) || !strings.HasSuffix(read(), "\nexport WEIR_ADMIN WEIR_TOKEN WEIR_CA\n") {
		t.Fatalf("it reads %q", read())
	}
	start() // on another port
	second, err := readAdminEnv(path)
	if err != nil {
		t.Fatal(err)
	}
	if second["WEIR_TOKEN"] != first["WEIR_TOKEN"] || second["WEIR_ADMIN"] == first["WEIR_ADMIN"] {
		t.Fatalf("after a restart it reads %v, before %v", second, first)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	start()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it was taken away, and is back: %v", err)
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{
		"/var/lib/weir/ca.pem": "/var/lib/weir/ca.pem", "[::1]:7401": "[::1]:7401",
		"/a b/c": "'/a b/c'", "it's": `'it'\''s'`, "$HOME": "'$HOME'",
	} {
		if got := quote(value); got != want {
			t.Errorf("%q is quoted as %s, want %s", value, got, want)
		}
	}
}

func devConfig(t *testing.T, dir, starter string) Config {
	return Config{
		Data:   dir,
		Server: &ServerConfig{Name: "dev", Node: "127.0.0.1:0", Admin: freeAddress(t), Open: true, Starter: starter},
		Edge:   &EdgeConfig{Name: "dev", Admin: freeAddress(t)},
	}
}

func TestDev(t *testing.T) {
	dir, gateway := t.TempDir(), freeAddress(t)
	cfg := devConfig(t, dir, gateway)
	process := run(t, cfg).ready()
	if status, _ := get(t, "http://"+gateway+"/"); status != 404 {
		t.Fatalf("a gateway without routes answers %d", status)
	}
	if status, body := get(t, "http://"+cfg.Edge.Admin+"/readyz"); status != 200 {
		t.Fatalf("readyz: %d %s", status, body)
	}
	api := dial(t, "http://"+cfg.Server.Admin, "", nil)
	if _, err := api.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Gateway", Name: "public"}}}); err != nil {
		t.Fatal(err)
	}
	process.stop()

	// What was deleted stays so.
	run(t, cfg).ready()
	list, err := api.List(t.Context(), &weirv1.ListRequest{})
	if err != nil || len(list.GetResources()) != 0 {
		t.Fatalf("after a restart there are %v, %v", list.GetResources(), err)
	}
}

func TestDevWhoseGatewayPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := devConfig(t, t.TempDir(), l.Addr().String())
	run(t, cfg).ready()
	list, err := dial(t, "http://"+cfg.Server.Admin, "", nil).List(t.Context(), &weirv1.ListRequest{})
	if err != nil || len(list.GetResources()) != 0 {
		t.Fatalf("there are %v, %v", list.GetResources(), err)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	run(t, devConfig(t, dir, "")).ready()
	second := run(t, devConfig(t, dir, ""))
	second.failed(fmt.Sprintf("%s is in use by another weir (process %d)", dir, os.Getpid()))
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"the admin address is taken": {Config{Server: &ServerConfig{Name: "a", Node: "127.0.0.1:0", Admin: busy}}, "start admin API"},
		"the proxy admin address is taken": {func() Config {
			cfg := devConfig(t, "", "")
			cfg.Edge.Admin = busy
			return cfg
		}(), "address already in use"},
		"an edge without a token":      {edgeConfig("", "127.0.0.1:1", ""), "has not joined yet"},
		"an edge with a broken token":  {edgeConfig("", "127.0.0.1:1", "weir1.x"), "parse join token"},
		"nothing to run":               {Config{}, "neither a server nor an edge"},
		"an address that is none":      {Config{Server: &ServerConfig{Name: "a", Node: "7400", Admin: ":0"}}, `"7400" is not HOST:PORT`},
		"a name that is none":          {Config{Server: &ServerConfig{Name: "A_1", Node: ":0", Admin: ":0"}}, "not a DNS label"},
		"an edge that knows no server": {Config{Edge: &EdgeConfig{Name: "e1"}}, "needs the address of a server"},
		"a demo of a server alone":     {Config{Demo: true, Server: &ServerConfig{Name: "a", Node: ":0", Admin: ":0"}}, "the demo needs"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Data = t.TempDir()
			run(t, c.cfg).failed(c.want)
		})
	}
}

// A server whose log is gone founds no new cluster under the names of the old.
func TestServerThatHasLostItsLog(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	run(t, serverConfig(t, dir, address)).ready().stop()
	env, err := os.ReadFile(filepath.Join(dir, "admin.env"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "raft")), os.RemoveAll(filepath.Join(dir, "state"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		run(t, serverConfig(t, dir, address)).failed("though this member had one")
	}
	if after, err := os.ReadFile(filepath.Join(dir, "admin.env")); err != nil || !bytes.Equal(after, env) {
		t.Errorf("admin.env was changed: %v", err)
	}
}

func TestEdgeKeepsItsName(t *testing.T) {
	serverDir, edgeDir, address := t.TempDir(), t.TempDir(), freeAddress(t)
	run(t, serverConfig(t, serverDir, address)).ready()
	api := adminAPI(t, serverDir)
	first := edgeConfig(edgeDir, address, joinToken(t, api))
	run(t, first).ready().stop()
	other := edgeConfig(edgeDir, address, joinToken(t, api))
	other.Edge.Name = "e2"
	run(t, other).failed("not of an edge named e2")
}

// A token of another cluster moves an edge there.
func TestEdgeMovesToAnotherCluster(t *testing.T) {
	edgeDir := t.TempDir()
	for range 2 {
		serverDir, address := t.TempDir(), freeAddress(t)
		server := run(t, serverConfig(t, serverDir, address)).ready()
		api := adminAPI(t, serverDir)
		edge := run(t, edgeConfig(edgeDir, address, joinToken(t, api))).ready()
		awaitConnected(t, api, "e1")
		edge.stop()
		server.stop()
	}
}

// A process that is told to stop while it waits for a server just stops.
func TestStopWhileStarting(t *testing.T) {
	dir := t.TempDir()
	serverDir, address := t.TempDir(), freeAddress(t)
	server := run(t, serverConfig(t, serverDir, address)).ready()
	token := joinToken(t, adminAPI(t, serverDir))
	server.stop()
	run(t, edgeConfig(dir, address, token)).stop()
}
