package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// sayAgain is a service that echoes by WebSocket.
func sayAgain(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, said, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, said) != nil {
			return
		}
	}
}

// WebSocket goes through sidecars, whichever way a client asks: by the Host, with its
// sidecar as its proxy, or by an edge. AccessRules hold for it, too.
func TestWebSocketInTheMesh(t *testing.T) {
	m := newMesh(t, "chat-0 chat", "shop-1 shop")
	m.cars["chat-0"].stop() // it has no ear for WebSocket
	echo := httptest.NewServer(http.HandlerFunc(sayAgain))
	defer echo.Close()
	run(t, Config{Data: t.TempDir(), Sidecar: &SidecarConfig{
		EdgeConfig: EdgeConfig{Name: "chat-1", Servers: m.servers, Token: m.token("chat"), Admin: freeport.Address(t)},
		Service:    "chat", Address: echo.Listener.Addr().String(), Inbound: freeport.Address(t), Outbound: freeport.Address(t),
	}}).ready()
	m.await("chat-1", func(i *weirv1.Instance) bool { return i != nil && !i.GetSpec().GetUnhealthy() })
	shop := m.cars["shop-1"].cfg.Sidecar
	m.awaitAnswer(426, "", func() (int, string) { return m.from("shop-1", "GET", "chat.mesh", "/") })
	m.awaitAnswer(426, "", func() (int, string) { return m.ask(m.gateway, "GET", "chat.example", "/") })

	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: shop.Outbound})}}
	defer proxied.CloseIdleConnections()
	tunnelled := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, _, answer, err := m.tryConnect("shop-1", "chat.mesh:80")
		if err == nil && answer.StatusCode != 200 {
			err = fmt.Errorf("CONNECT is answered %s", answer.Status)
		}
		return c, err
	}}}
	defer tunnelled.CloseIdleConnections()
	for name, way := range map[string]struct {
		url  string
		opts websocket.DialOptions
	}{
		"by the Host":  {"ws://" + shop.Outbound + "/room", websocket.DialOptions{Host: "chat.mesh"}},
		"as its proxy": {"ws://chat.mesh/room", websocket.DialOptions{HTTPClient: proxied}},
		"by CONNECT":   {"ws://chat.mesh/room", websocket.DialOptions{HTTPClient: tunnelled}},
		"by an edge":   {"ws://" + m.gateway + "/room", websocket.DialOptions{Host: "chat.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := websocket.Dial(t.Context(), way.url, &way.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			for _, said := range []string{"hello", strings.Repeat("a long tale ", 2500), "bye"} {
				if err := c.Write(t.Context(), websocket.MessageText, []byte(said)); err != nil {
					t.Fatal(err)
				}
				if _, heard, err := c.Read(t.Context()); err != nil || string(heard) != said {
					t.Fatalf("heard %.20q, %v, want %.20q", heard, err, said)
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Errorf("it does not part: %v", err)
			}
		})
	}
	if n := m.counted(shop.Admin, "chat", "h1"); n != 3 {
		t.Errorf("%d conversations are counted, want 3", n)
	}

	apply(t, m.api, resource.Wrap(&weirv1.AccessRule{Metadata: &weirv1.Metadata{Name: "nobody"}, Spec: &weirv1.AccessRuleSpec{Service: "chat"}}))
	m.awaitAnswer(403, "access_denied", func() (int, string) { return m.from("shop-1", "GET", "chat.mesh", "/") })
	if c, answer, err := websocket.Dial(t.Context(), "ws://"+shop.Outbound+"/room", &websocket.DialOptions{Host: "chat.mesh"}); err == nil {
		c.CloseNow()
		t.Error("whom no rule allows may talk")
	} else if answer == nil || answer.StatusCode != 403 {
		t.Errorf("whom no rule allows is told %v, %v", answer, err)
	}
}
