package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// talkative is a service that echoes by WebSocket, and otherwise begins an answer that has no end.
func talkative(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/room":
			sayAgain(w, r)
		case "/endless":
			fmt.Fprintln(w, "once upon a time")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// conversations are under way from a sidecar's service to chat: one by WebSocket, and an
// answer.
type conversations struct {
	room    *websocket.Conn
	endless *bufio.Reader
	end     func()
}

func (m *meshed) converse(from string) *conversations {
	m.t.Helper()
	outbound := m.cars[from].cfg.Sidecar.Outbound
	room, _, err := websocket.Dial(m.t.Context(), "ws://"+outbound+"/room", &websocket.DialOptions{Host: "chat.mesh"})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := room.Write(m.t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		m.t.Fatal(err)
	}
	if _, _, err := room.Read(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(m.t.Context(), "GET", "http://"+outbound+"/endless", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	r.Host = "chat.mesh"
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		m.t.Fatal(err)
	}
	c := &conversations{room, bufio.NewReader(answer.Body), func() { room.CloseNow(); answer.Body.Close() }}
	m.t.Cleanup(c.end)
	if line, err := c.endless.ReadString('\n'); err != nil || line != "once upon a time\n" {
		m.t.Fatalf("answered %q, %v", line, err)
	}
	return c
}

// requireBroken waits until both have ended, and in no way that looks like an end.
func (c *conversations) requireBroken(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, said, err := c.room.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the conversation goes on: %q, %v", said, err)
	}
	if _, err := c.endless.ReadString('\n'); err == nil || err == io.EOF {
		t.Errorf("the answer ended with %v", err)
	}
}

// awaitCount waits until a sidecar has counted so much.
func (m *meshed) awaitCount(of, series string, least string) {
	m.t.Helper()
	want := regexp.MustCompile(`(?m)^` + series + ` ` + least + `$`)
	m.awaitAnswer(200, "", func() (int, string) {
		status, page := m.ask(m.cars[of].cfg.Sidecar.Admin, "GET", "x", "/metrics")
		if !want.MatchString(page) {
			status = 0
		}
		return status, strings.Join(regexp.MustCompile(`(?m)^weir_mesh_.*$`).FindAllString(page, -1), "\n")
	})
}

// Who is removed is not believed by other proxies either: what they have with it under way
// breaks, whichever of the two has called, and it is let in no more, also by one that was
// restarted with no server there.
func TestWhoIsRemovedIsShutOutOfTheMesh(t *testing.T) {
	node, dir := freeport.Address(t), t.TempDir()
	server := run(t, serverConfig(t, dir, node)).ready()
	m := &meshed{t: t, api: adminAPI(t, dir), servers: []string{node}, cars: map[string]*car{}}
	cluster := weirv1connect.NewClusterServiceClient(adminClient(t, dir))
	m.begin("chat-0 chat", "shop-1 shop", "thief-1 shop")
	m.cars["chat-0"].stop() // it has nothing to say
	chat := &car{service: talkative(t)}
	chat.cfg = Config{Data: t.TempDir(), Sidecar: &SidecarConfig{
		EdgeConfig: EdgeConfig{Name: "chat-1", Servers: m.servers, Token: m.token("chat"), Admin: freeport.Address(t)},
		Service:    "chat", Address: chat.service.Listener.Addr().String(), Inbound: freeport.Address(t), Outbound: freeport.Address(t),
	}}
	chat.running = run(t, chat.cfg).ready()
	m.cars["chat-1"] = chat
	m.await("chat-0", gone)
	m.await("chat-1", func(i *weirv1.Instance) bool { return i != nil && !i.GetSpec().GetUnhealthy() })
	m.awaitAnswer(200, "", func() (int, string) { return m.from("thief-1", "GET", "chat.mesh", "/") })
	m.awaitAnswer(200, "", func() (int, string) { return m.from("shop-1", "GET", "chat.mesh", "/") })
	stolen, honest := m.converse("thief-1"), m.converse("shop-1")

	remove := func(name string) {
		t.Helper()
		if _, err := cluster.RemoveProxy(t.Context(), &weirv1.RemoveProxyRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	remove("thief-1")
	stolen.requireBroken(t)
	m.awaitCount("chat-1", "weir_mesh_cut_total", "[2-9]")
	for range 3 { // it has a connection that breaks at once (502), or none (503)
		if status, body := m.from("thief-1", "GET", "chat.mesh", "/"); status != 502 && status != 503 {
			t.Errorf("who was removed is answered %d %s", status, body)
		}
	}
	m.awaitCount("chat-1", "weir_mesh_refused_total", `[1-9]\d*`)
	if err := honest.room.Write(t.Context(), websocket.MessageText, []byte("still there?")); err != nil {
		t.Error(err)
	}
	if _, said, err := honest.room.Read(t.Context()); err != nil || string(said) != "still there?" {
		t.Errorf("whom nobody removed hears %q, %v", said, err)
	}

	honest.end()

	// It knows from its disk.
	server.stop()
	chat.stop()
	chat.cfg.Sidecar.Token = ""
	chat.running = run(t, chat.cfg).ready()
	m.awaitAnswer(200, "", func() (int, string) { return m.from("shop-1", "GET", "chat.mesh", "/") })
	for range 3 { // it has a connection that breaks at once (502), or none (503)
		if status, body := m.from("thief-1", "GET", "chat.mesh", "/"); status != 502 && status != 503 {
			t.Errorf("who was removed is answered %d %s", status, body)
		}
	}
	m.awaitCount("chat-1", "weir_mesh_refused_total", `[1-9]\d*`)

	// Whoever was called is left by those who called.
	run(t, serverConfig(t, dir, node)).ready()
	m.api, cluster = adminAPI(t, dir), weirv1connect.NewClusterServiceClient(adminClient(t, dir))
	honest = m.converse("shop-1")
	remove("chat-1")
	honest.requireBroken(t)
	m.awaitCount("shop-1", "weir_mesh_cut_total", "[2-9]")
}
