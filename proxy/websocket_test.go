package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/telemetry"
)

const upgrade = "GET /chat HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"

// chat is a service that agrees to WebSocket and then says back what it hears,
// to the end.
func chat(t testing.TB) string {
	return scripted(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s!\r\n\r\nwelcome ", r.Header.Get("Sec-WebSocket-Key"))
		io.Copy(c, in)
		io.WriteString(c, " bye")
	})
}

// heard reads exactly what is expected.
func heard(t testing.TB, in io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got[:n], err, want)
	}
}

func TestWebSocket(t *testing.T) {
	open := func(t *testing.T) (*edge, *client) {
		e := startEdge(t, service("s", chat(t)), route("r", "/", "s"))
		c := dial(t, e.addr)
		c.send(upgrade + "early ")
		resp := c.head("GET")
		if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "k!" || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Connection") != "Upgrade" {
			t.Fatalf("got %s, %v", resp.Status, resp.Header)
		}
		return e, c
	}
	t.Run("both ways, to the end", func(t *testing.T) {
		_, c := open(t)
		heard(t, c.in, "welcome early ")
		large := strings.Repeat("0123456789", 30_000)
		for range 3 {
			c.send("hello")
			heard(t, c.in, "hello")
		}
		go io.WriteString(c, large)
		heard(t, c.in, large)
		c.CloseWrite()
		heard(t, c.in, " bye")
		c.closed()
	})
	t.Run("its request is logged as it was", func(t *testing.T) {
		var log bytes.Buffer
		access := telemetry.NewAccessLog(&log, telemetry.NewMetrics("test").LogLost)
		e := startEdgeWith(t, func(c *proxy.Config) { c.Access = access }, service("s", chat(t)), route("r", "/", "s"))
		c := dial(t, e.addr)
		c.send(upgrade)
		c.head("GET")
		c.send(strings.Repeat("over the head ", 1000))
		c.CloseWrite()
		io.Copy(io.Discard, c.in)
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		access.Close()
		if text := log.String(); !strings.Contains(text, `"path":"/chat"`) || !strings.Contains(text, `"status":101`) {
			t.Errorf("the log says %s", text)
		}
	})
	t.Run("a client that is gone ends it", func(t *testing.T) {
		_, c := open(t)
		c.Close() // and scripted waits for the service to have noticed
	})
	t.Run("a shutdown waits for it, and then does not", func(t *testing.T) {
		e, c := open(t)
		heard(t, c.in, "welcome early ")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Shutdown(ctx) }()
		c.send("still")
		heard(t, c.in, "still")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWebSocketOverTLS(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), service("s", chat(t)), route("r", "/", "s"))
	c := mustDialTLS(e, "shop.example")
	io.WriteString(c, upgrade)
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	heard(t, in, "welcome ")
	io.WriteString(c, "hello")
	heard(t, in, "hello")
	c.CloseWrite()
	heard(t, in, " bye")
}

// What does not ask for WebSocket in every point is an ordinary request, and a
// service that switches all the same gives no valid answer.
func TestNoWebSocket(t *testing.T) {
	for name, c := range map[string]struct {
		request string
		want    int
	}{
		"another protocol":        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400},
		"not named by Connection": {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400},
		"another method":          {"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", 400},
		"a body":                  {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", 400},
		"HTTP/1.0":                {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEdgeWith(t, func(*proxy.Config) {}, service("s", chat(t)), route("r", "/", "s"))
			if resp, _ := dial(t, e.addr).exchange(c.request); resp.StatusCode != c.want {
				t.Errorf("got %s", resp.Status)
			}
		})
	}
	refusing := upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	e := startEdge(t, service("s", refusing), route("r", "/", "s"))
	c := dial(t, e.addr)
	if resp, _ := c.exchange(upgrade); resp.StatusCode != 403 {
		t.Errorf("a service that refuses: %s", resp.Status)
	}
	if resp, _ := c.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 403 {
		t.Errorf("the next request: %s", resp.Status)
	}
}

// A service that is spoken to by HTTP/2 cannot be spoken to by WebSocket. That is
// no fault of its endpoints, and not tried again.
func TestWebSocketToAServiceOfHTTP2(t *testing.T) {
	s := h2Server(t, false, func(w http.ResponseWriter, r *http.Request) {})
	s.Spec.OutlierDetection = &weirv1.OutlierDetection{BaseEjectionTime: duration(time.Hour), Consecutive_5Xx: new(uint32)}
	*s.Spec.OutlierDetection.Consecutive_5Xx = 1
	e, metric := measured(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, s, route("r", "/", "s"))
	resp, body := dial(t, e.addr).exchange(upgrade)
	if resp.StatusCode != 501 || !strings.Contains(body, "no_websocket") {
		t.Errorf("got %s %s", resp.Status, body)
	}
	if n := metric(fmt.Sprintf(`weir_upstream_failures_total{endpoint="%s"}`, s.Spec.Endpoints[0].Address)); n != "0" {
		t.Errorf("%s tries have failed", n)
	}
	if resp, _ := get(t, e.url("/")); resp.StatusCode != 200 {
		t.Errorf("its endpoint is out of use: %s", resp.Status)
	}
}
