package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/freeport"
	"github.com/weirmesh/weir/nodeapi"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// several are servers of one cluster, in one process.
type several struct {
	t       *testing.T
	dirs    map[string]string
	configs map[string]Config
	running map[string]*running
}

func newSeveral(t *testing.T) *several {
	return &several{t: t, dirs: map[string]string{}, configs: map[string]Config{}, running: map[string]*running{}}
}

// begin starts a new server, which begins as change says.
func (s *several) begin(name string, change func(*ServerConfig)) {
	s.t.Helper()
	s.dirs[name] = s.t.TempDir()
	sc := &ServerConfig{Name: name, Node: freeport.Address(s.t), Admin: freeport.Address(s.t)}
	change(sc)
	s.configs[name] = Config{Data: s.dirs[name], Server: sc}
	s.start(name)
}

func (s *several) start(name string) { s.running[name] = run(s.t, s.configs[name]) }

// services are a member's APIs, with the token of the first one.
func (s *several) services(first, name string) (weirv1connect.AdminServiceClient, weirv1connect.ClusterServiceClient) {
	s.t.Helper()
	env, config := adminAccess(s.t, s.dirs[first])
	client := dialClient(s.t, "https://"+s.configs[name].Server.Admin, env["WEIR_TOKEN"], config)
	return weirv1connect.NewAdminServiceClient(client), weirv1connect.NewClusterServiceClient(client)
}

func (s *several) joinToken(first string) string {
	s.t.Helper()
	api, _ := s.services(first, first)
	m, err := api.CreateJoinToken(s.t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_SERVER, Uses: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	return m.GetToken()
}

// awaitStatus waits until a member sees the cluster as it should be.
func (s *several) awaitStatus(first, name string, good func(*weirv1.ClusterStatus) bool) {
	s.t.Helper()
	_, cluster := s.services(first, name)
	var last *weirv1.ClusterStatus
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		m, err := cluster.GetStatus(s.t.Context(), &weirv1.ClusterServiceGetStatusRequest{})
		if last = m.GetStatus(); err == nil && good(last) {
			return
		}
	}
	s.t.Fatalf("%s sees the cluster as %v", name, last)
}

func voters(n int) func(*weirv1.ClusterStatus) bool {
	return func(m *weirv1.ClusterStatus) bool {
		return m.GetLeader() != "" && m.GetVoters() == uint32(n) && m.GetReachableVoters() == uint32(n) && len(m.GetMembers()) == n
	}
}

func (s *several) put(first, at, name string) {
	s.t.Helper()
	api, _ := s.services(first, at)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	r := resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: name},
		Spec: &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: "127.0.0.1:9"}}}})
	if _, err := api.Apply(ctx, &weirv1.ApplyRequest{Resources: []*weirv1.Resource{r}}); err != nil {
		s.t.Fatalf("put %s at %s: %v", name, at, err)
	}
}

func (s *several) requireHolds(first, at string, names ...string) {
	s.t.Helper()
	api, _ := s.services(first, at)
	list, err := api.List(s.t.Context(), &weirv1.ListRequest{Kind: resource.KindService})
	if err != nil {
		s.t.Fatalf("list at %s: %v", at, err)
	}
	var got []string
	for _, r := range list.GetResources() {
		got = append(got, resource.Of(r).Name)
	}
	if !slices.Equal(got, names) {
		s.t.Errorf("%s holds %v, want %v", at, got, names)
	}
}

// newThree begins three servers, one after the other, of which a leads.
func newThree(t *testing.T) *several {
	t.Helper()
	s := newSeveral(t)
	s.begin("a", func(sc *ServerConfig) { sc.Bootstrap = true })
	s.running["a"].ready()
	for _, name := range []string{"b", "c"} {
		token := s.joinToken("a")
		s.begin(name, func(sc *ServerConfig) { sc.Join, sc.Token = []string{s.configs["a"].Server.Node}, token })
		s.running[name].ready()
	}
	s.awaitStatus("a", "a", voters(3))
	return s
}

// A name belongs to the proxy that is connected under it, to whichever server: another
// one gets it at none. Once that proxy is gone it is free.
func TestNamesInUseAreKnownToAllServers(t *testing.T) {
	s := newThree(t)
	api, _ := s.services("a", "a")
	at := func(server string) Config {
		return edgeConfig(t.TempDir(), s.configs[server].Server.Node, joinToken(t, api))
	}
	first := run(t, at("b")).ready()
	for _, server := range []string{"a", "b", "c"} {
		there, _ := s.services("a", server)
		awaitConnected(t, there, "e1") // as that server knows
		requireNameTaken(t, s.configs[server].Server.Node, joinToken(t, api), "e1")
	}
	first.stop()
	for limit := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		status, err := api.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
		if err == nil && !slices.ContainsFunc(status.GetProxies(), (*weirv1.ProxyStatus).GetConnected) {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the proxies are %v, %v", status.GetProxies(), err)
		}
	}
	run(t, at("a")).ready()
	awaitConnected(t, api, "e1")
}

// A proxy that is removed at one server is shut out at all: its streams end, its key is
// good for nothing, what it has registered is gone. A new one may join under its name.
func TestAProxyIsShutOut(t *testing.T) {
	s := newThree(t)
	api, cluster := s.services("a", "a")
	apply(t, api, resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "books"}, Spec: new(weirv1.ServiceSpec)}))
	m := &meshed{t: t, api: api, servers: []string{s.configs["b"].Server.Node}, cars: map[string]*car{}}
	thief := m.join("books-1", "books", "v1")
	requireProxies := func(server, want string) {
		t.Helper()
		there, _ := s.services("a", server)
		for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			status, err := there.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
			if err == nil && proxiesText(status.GetProxies()) == want {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("as %s knows, the proxies are %q, want %q, %v", server, proxiesText(status.GetProxies()), want, err)
			}
		}
	}
	for _, server := range []string{"a", "b", "c"} {
		requireProxies(server, "books-1 connected")
	}
	remove := func(name string) error {
		_, err := cluster.RemoveProxy(t.Context(), &weirv1.RemoveProxyRequest{Name: name})
		return err
	}
	if err := remove("c"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a server was removed as a proxy: %v", err)
	}
	for range 2 { // a second time does no harm
		if err := remove("books-1"); err != nil {
			t.Fatal(err)
		}
		m.await("books-1", gone)
	}
	for _, server := range []string{"a", "b", "c"} {
		requireProxies(server, "")
	}
	requireShutOut(t, thief.cfg.Data, m.servers[0])

	// It tries on, and stays out; whoever joins anew gets the name.
	newcomer := m.join("books-1", "books", "v2")
	requireProxies("c", "books-1 connected")
	requireShutOut(t, thief.cfg.Data, m.servers[0])
	newcomer.stop()
}

func proxiesText(all []*weirv1.ProxyStatus) string {
	var texts []string
	for _, p := range all {
		state := " gone"
		if p.GetConnected() {
			state = " connected"
		}
		texts = append(texts, p.GetName()+state)
	}
	return strings.Join(texts, ", ")
}

// requireShutOut asks a server for all that a proxy may, by the key in a data directory.
func requireShutOut(t *testing.T, dir, server string) {
	t.Helper()
	node, err := identity.Open(filepath.Join(dir, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := node.Request()
	if err != nil {
		t.Fatal(err)
	}
	d := nodeport.NewDialer(nodeport.DialerConfig{Logger: testLogger(t)})
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	link, err := d.Link(ctx, server, node.ClientTLS)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	asks := weirv1connect.NewNodeServiceClient(connect.NewClient(connecthttp.NewTransport(link, "https://"+server)))
	for call, ask := range map[string]func() error{
		"renew": func() error { _, err := asks.Renew(ctx, &weirv1.RenewRequest{Csr: csr}); return err },
		"register": func() error {
			_, err := asks.RegisterInstance(ctx, &weirv1.RegisterInstanceRequest{Address: "127.0.0.1:1"})
			return err
		},
		"report": func() error { _, err := asks.ReportUsage(ctx, new(weirv1.ReportUsageRequest)); return err },
		"blob": func() error {
			stream, err := asks.GetBlob(ctx, new(weirv1.GetBlobRequest))
			if err == nil {
				_, err = stream.Receive()
			}
			return err
		},
		"configuration": func() error {
			stream, err := asks.StreamConfig(ctx)
			if err == nil {
				_ = stream.Send(&weirv1.StreamConfigRequest{}) // what is said of it is received
				_, err = stream.Receive()
			}
			return err
		},
	} {
		if err := ask(); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: got %v", call, err)
		}
	}
}

// requireNameTaken joins as an edge at a server until that says that the name is taken.
func requireNameTaken(t *testing.T, server, token, name string) {
	t.Helper()
	node, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	said := errors.New("taken")
	ctx, end := context.WithCancelCause(ctx)
	err = nodeapi.Join(ctx, node, nodeapi.JoinConfig{Servers: []string{server}, Token: token, Role: identity.RoleEdge, Name: name,
		Logger: slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
			if strings.Contains(string(line), "a node of that name is there now") {
				end(said)
			}
			return len(line), nil
		}), nil))})
	if !errors.Is(err, said) {
		t.Fatalf("joined at %s as %s: %v", server, name, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Three servers, one after the other; a life with a leader that goes, a backup,
// and a member that is taken out and may not come back by itself.
func TestServersJoin(t *testing.T) {
	s := newThree(t)
	s.put("a", "b", "one")
	s.requireHolds("a", "c", "one")

	// The leader goes as it should, and comes back at another address.
	s.running["a"].stop()
	s.put("a", "c", "two")
	moved := s.configs["a"]
	server := *moved.Server
	server.Node = freeport.Address(t)
	moved.Server = &server
	s.configs["a"] = moved
	s.start("a")
	s.running["a"].ready()
	s.awaitStatus("a", "b", voters(3))
	s.requireHolds("a", "a", "one", "two")

	requireBackup(t, s)
	_, cluster := s.services("a", "a")
	if _, err := cluster.RemoveMember(t.Context(), &weirv1.RemoveMemberRequest{Name: "c"}); err != nil {
		t.Fatal(err)
	}
	s.awaitStatus("a", "a", voters(2))
	s.awaitStatus("a", "c", func(m *weirv1.ClusterStatus) bool { return m.GetRemoved() })
	s.put("a", "b", "zwei")
	s.requireHolds("a", "a", "one", "two", "zwei")
	requireRemoved(t, s, "c")
}

// requireRemoved: a member that was taken out says so to whoever asks, at once, and
// still when it is started again; its process stays.
func requireRemoved(t *testing.T, s *several, name string) {
	t.Helper()
	for range 2 {
		api, _ := s.services("a", name)
		var err error
		for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), leaderless/2)
			_, err = api.List(ctx, &weirv1.ListRequest{Kind: resource.KindService})
			cancel()
			if connect.CodeOf(err) == connect.CodeUnavailable && strings.Contains(err.Error(), name+" was removed") {
				break
			}
		}
		if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), name+" was removed") {
			t.Fatalf("%s answers %v", name, err)
		}
		s.running[name].stop()
		s.start(name)
	}
}

// leaderless is how long calls wait where there may yet be a leader.
const leaderless = 10 * time.Second

// requireBackup: what is in a backup comes back, and what came after it goes.
func requireBackup(t *testing.T, s *several) {
	t.Helper()
	_, cluster := s.services("a", "b")
	stream, err := cluster.Backup(t.Context(), &weirv1.BackupRequest{RequireCurrent: true})
	if err != nil {
		t.Fatal(err)
	}
	var saved []byte
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		saved = append(saved, m.GetChunk()...)
	}
	s.put("a", "a", "three")
	if err := restore(t, s, saved[:len(saved)/2]); err == nil {
		t.Error("half a backup was restored")
	}
	s.requireHolds("a", "b", "one", "three", "two")
	// The member that has restored shows it at once; others may be behind.
	before := s.revision("a", "c")
	if err := restore(t, s, saved); err != nil {
		t.Fatal(err)
	}
	s.requireHolds("a", "b", "one", "two")
	if after := s.revision("a", "c"); after <= before {
		t.Errorf("the revision went from %d to %d", before, after)
	}
}

func (s *several) revision(first, at string) uint64 {
	s.t.Helper()
	_, cluster := s.services(first, at)
	m, err := cluster.GetStatus(s.t.Context(), &weirv1.ClusterServiceGetStatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return m.GetStatus().GetRevision()
}

// restore asks a member that may not be the leader.
func restore(t *testing.T, s *several, saved []byte) error {
	t.Helper()
	_, cluster := s.services("a", "c")
	stream, err := cluster.Restore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send := func(m *weirv1.RestoreRequest) {
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Options{Options: &weirv1.RestoreOptions{Force: true}}})
	send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Chunk{Chunk: saved}})
	_, err = stream.CloseAndReceive()
	return err
}

// A server that can never be let in ends, and says why; nothing is changed by it.
func TestServersThatCannotJoin(t *testing.T) {
	s, elsewhere := newSeveral(t), newSeveral(t)
	for _, c := range []*several{s, elsewhere} {
		c.begin("a", func(sc *ServerConfig) { sc.Bootstrap = true })
		c.running["a"].ready()
	}
	api, operator := s.services("a", "a")
	at := []string{s.configs["a"].Server.Node}
	used, revoked := s.joinToken("a"), s.joinToken("a")
	s.begin("b", func(sc *ServerConfig) { sc.Join, sc.Token = at, used })
	s.running["b"].ready()
	if _, err := operator.RevokeJoinToken(t.Context(), &weirv1.RevokeJoinTokenRequest{Id: strings.Split(revoked, ".")[1]}); err != nil {
		t.Fatal(err)
	}
	edge, err := api.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE})
	if err != nil {
		t.Fatal(err)
	}
	own := freeport.Address(t)
	_, port, err := net.SplitHostPort(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, name, token string
		join              []string
		want              string
	}{
		{"no token", "c", "", at, "give a token"},
		{"a token that another has used", "c", used, at, identity.ErrTokenUsed.Error()},
		{"a token that was revoked", "c", revoked, at, identity.ErrTokenRevoked.Error()},
		{"a token for edges", "c", edge.GetToken(), at, "this one is of role server"},
		{"a token of another cluster", "c", elsewhere.joinToken("a"), at, "a token is good for the cluster that made it"},
		{"the name of a member", "b", s.joinToken("a"), at, "a node of that name is there"},
		{"itself", "c", s.joinToken("a"), []string{own}, "names this server alone"},
		{"itself, by another name", "c", s.joinToken("a"), []string{"localhost:" + port}, "names this server alone"},
	} {
		t.Run(c.what, func(t *testing.T) {
			sc := &ServerConfig{Name: c.name, Node: own, Admin: freeport.Address(t), Join: c.join, Token: c.token}
			run(t, Config{Data: t.TempDir(), Server: sc}).failed(c.want)
		})
	}
	if names := s.memberNames("a"); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("members are %v", names)
	}
}

// Three servers that were given one key found a cluster; a fourth with another
// key is told so.
func TestServersFoundTogether(t *testing.T) {
	keyring := filepath.Join(t.TempDir(), "keyring")
	if err := NewKeyring(keyring); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keyring)
	if err != nil {
		t.Fatal(err)
	}
	s := newSeveral(t)
	names := []string{"a", "b", "c"}
	addresses := []string{freeport.Address(t), freeport.Address(t), freeport.Address(t)}
	for i, name := range names {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "keyring"), key, 0o600); err != nil {
			t.Fatal(err)
		}
		s.dirs[name] = dir
		s.configs[name] = Config{Data: dir, Server: &ServerConfig{Name: name, Node: addresses[i], Admin: freeport.Address(t),
			BootstrapExpect: 3, Join: addresses}}
		s.start(name)
	}
	for _, name := range names {
		s.running[name].ready()
	}
	s.awaitStatus("a", "b", voters(3))
	s.put("a", "c", "one")
	s.requireHolds("a", "b", "one")

	s.running["b"].stop()
	s.start("b")
	s.running["b"].ready()
	s.awaitStatus("a", "a", voters(3))

	alone := Config{Data: t.TempDir(), Server: &ServerConfig{Name: "d", Node: freeport.Address(t), Admin: freeport.Address(t),
		BootstrapExpect: 3, Join: addresses}}
	run(t, alone).failed("make it once (weir cluster keys new FILE)")
	if !strings.Contains(strings.Join(s.memberNames("a"), " "), "a b c") {
		t.Errorf("members are %v", s.memberNames("a"))
	}
}

func (s *several) memberNames(at string) (names []string) {
	s.t.Helper()
	_, cluster := s.services(at, at)
	m, err := cluster.GetStatus(s.t.Context(), &weirv1.ClusterServiceGetStatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, member := range m.GetStatus().GetMembers() {
		names = append(names, member.GetName())
	}
	return names
}
