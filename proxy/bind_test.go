package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

func gatewayAt(address string, port int) *weirv1.Gateway {
	return &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Address: address, Port: uint32(port), Protocol: weirv1.Listener_HTTP}}}}
}

// startAt starts an edge on real ports, and moves its gateway to the first.
func startAt(t *testing.T, address string, port int) *edge {
	t.Helper()
	upstream := upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "books") })
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.Listen = func(network, at string) (net.Listener, error) {
			if strings.HasSuffix(at, ":80") {
				at = "127.0.0.1:0" // where startEdge begins
			}
			return net.Listen(network, at)
		}
	}, service("books", upstream), route("books", "/", "books"))
	e.apply(gatewayAt(address, port))
	return e
}

func requireBooks(t *testing.T, port int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "books" {
		t.Fatalf("got %d %s, %v", res.StatusCode, body, err)
	}
}

// A listener that goes from one address to every one, or back, is in its own
// way; the update takes it out of it.
func TestAListenerChangesItsAddress(t *testing.T) {
	port := freeport.Port(t)
	e := startAt(t, "127.0.0.1", port)
	requireBooks(t, port)
	for _, address := range []string{"", "127.0.0.1", "0.0.0.0", ""} {
		e.apply(gatewayAt(address, port))
		requireBooks(t, port)
	}
}

// A listener that is moved to a port that another program has stays where it
// was, until the port is free or it is moved on.
func TestAListenerThatCannotMoveStays(t *testing.T) {
	old, next := freeport.Port(t), freeport.Port(t)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken := other.Addr().(*net.TCPAddr).Port
	e := startAt(t, "127.0.0.1", old)
	want := fmt.Sprintf("open listener public/http: listen tcp 127.0.0.1:%d: bind: address already in use (until it can be, it stays at 127.0.0.1:%d)", taken, old)
	for range 2 { // from the old port, and back from the port that it did not get
		if err := e.try(gatewayAt("127.0.0.1", taken)); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		requireBooks(t, old)
		e.apply(gatewayAt("127.0.0.1", old))
		requireBooks(t, old)
	}
	if err := e.try(gatewayAt("127.0.0.1", taken)); err == nil {
		t.Error("the port is taken")
	}
	e.apply(gatewayAt("127.0.0.1", next))
	requireBooks(t, next)
	requireClosed(t, old)

	if err := e.try(gatewayAt("127.0.0.1", taken)); err == nil {
		t.Error("the port is taken")
	}
	other.Close()
	requireClosed(t, next) // once the retry has opened the other
	requireBooks(t, taken)
}

// requireClosed waits until nobody listens on a port.
func requireClosed(t *testing.T, port int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return
		}
		c.Close()
	}
	t.Fatalf("port %d is still open", port)
}
