package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A server and an edge on their own: joining, serving, and each one's death.
func TestServerAndEdge(t *testing.T) {
	serverDir, edgeDir := t.TempDir(), t.TempDir()
	address, gateway, upstream := freeport.Address(t), freeport.Address(t), newUpstream(t)
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

// Who is served for longer than the drain may take is cut; the edge has stopped
// all the same, and not failed.
func TestEdgeStopsWhoeverIsServed(t *testing.T) {
	dir, address, gateway := t.TempDir(), freeport.Address(t), freeport.Address(t)
	run(t, serverConfig(t, dir, address)).ready()
	api := adminAPI(t, dir)
	asked := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	t.Cleanup(upstream.Close)
	config := edgeConfig(t.TempDir(), address, joinToken(t, api))
	config.Edge.Drain = time.Millisecond
	edge := run(t, config).ready()
	apply(t, api, shop(t, gateway, upstream, "/books")...)

	client := make(chan error)
	go func() {
		_, err := http.Get("http://" + gateway + "/books")
		client <- err
	}()
	<-asked
	edge.stop()
	if err := <-client; err == nil {
		t.Error("the client was answered")
	}
}

func TestAdminAPIOfAServerWantsTLSAndAToken(t *testing.T) {
	dir := t.TempDir()
	run(t, serverConfig(t, dir, "127.0.0.1:0")).ready()
	env, config := adminAccess(t, dir)
	ask := func(url, token string, config *tls.Config) error {
		_, err := dial(t, url, token, config).GetStatus(t.Context(), &weirv1.GetStatusRequest{})
		return err
	}
	url := "https://" + env["WEIR_ADMIN"]
	if err := ask(url, env["WEIR_TOKEN"], config); err != nil {
		t.Errorf("with what admin.env says: %v", err)
	}
	for name, token := range map[string]string{"no token": "", "a made-up token": env["WEIR_TOKEN"] + "x"} {
		if err := ask(url, token, config); connect.CodeOf(err) != connect.CodeUnauthenticated {
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
		Server: &ServerConfig{Name: "dev", Node: "127.0.0.1:0", Admin: freeport.Address(t), Open: true, Starter: starter, Bootstrap: true},
		Edge:   &EdgeConfig{Name: "dev", Admin: freeport.Address(t)},
	}
}

func TestDev(t *testing.T) {
	dir, gateway := t.TempDir(), freeport.Address(t)
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
		"an edge without a token":     {edgeConfig("", "127.0.0.1:1", ""), "has not joined yet"},
		"an edge with a broken token": {edgeConfig("", "127.0.0.1:1", "weir1.x"), "parse join token"},
		"nothing to run":              {Config{}, "neither a server nor an edge"},
		"an address that is none":     {Config{Server: &ServerConfig{Name: "a", Node: "7400", Admin: ":0"}}, `"7400" is not HOST:PORT`},
		"two ways to begin": {Config{Server: &ServerConfig{Name: "a", Node: ":0", Admin: ":0", Bootstrap: true, Join: []string{"b:7400"}}},
			"begins in one way"},
		"founders that do not find each other": {Config{Server: &ServerConfig{Name: "a", Node: ":0", Admin: ":0", BootstrapExpect: 3}},
			"say where they are with --join"},
		"joining without a token": {Config{Server: &ServerConfig{Name: "a", Node: "127.0.0.1:0", Admin: "127.0.0.1:0", Join: []string{"b:7400"}}},
			"to join, give a token"},
		"an address to join that is none": {Config{Server: &ServerConfig{Name: "a", Node: ":0", Admin: ":0", Join: []string{"b"}}}, `join address "b"`},
		"a name that is none":             {Config{Server: &ServerConfig{Name: "A_1", Node: ":0", Admin: ":0"}}, "not a DNS label"},
		"an edge that knows no server":    {Config{Edge: &EdgeConfig{Name: "e1"}}, "needs the address of a server"},
		"a demo of a server alone":        {Config{Demo: true, Server: &ServerConfig{Name: "a", Node: ":0", Admin: ":0"}}, "the demo needs"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Data = t.TempDir()
			run(t, c.cfg).failed(c.want)
		})
	}
}

// A server whose log is gone founds no new cluster under the names of the old.
func TestServerThatHasLostItsLog(t *testing.T) {
	dir, address := t.TempDir(), freeport.Address(t)
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
	serverDir, edgeDir, address := t.TempDir(), t.TempDir(), freeport.Address(t)
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
		serverDir, address := t.TempDir(), freeport.Address(t)
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
	serverDir, address := t.TempDir(), freeport.Address(t)
	server := run(t, serverConfig(t, serverDir, address)).ready()
	token := joinToken(t, adminAPI(t, serverDir))
	server.stop()
	run(t, edgeConfig(dir, address, token)).stop()
}
