package smuggling_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait, so that what hangs fails.
const patience = 2 * time.Minute

// startEdge starts an edge that forwards everything to one upstream, and
// returns its address.
func startEdge(t *testing.T, upstream string) (addr string) {
	t.Helper()
	p, err := proxy.New(proxy.Config{
		Metrics: telemetry.NewMetrics("test"),
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
		Listen: func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err == nil {
				addr = l.Addr().String()
			}
			return l, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
	})
	u := proxy.Update{Revision: 1}
	for _, r := range []resource.Message{
		&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
			Listeners: []*weirv1.Listener{{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}}}},
		&weirv1.Service{Metadata: &weirv1.Metadata{Name: "s"}, Spec: &weirv1.ServiceSpec{
			Endpoints: []*weirv1.Endpoint{{Address: upstream}}}},
		&weirv1.Route{Metadata: &weirv1.Metadata{Name: "r"}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: "public"}},
			Rules:      []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: "s"}}}}}},
	} {
		u.Puts = append(u.Puts, resource.Wrap(r))
	}
	if err := p.Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	return addr
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// send writes s, in one piece or byte by byte, and ends as it says. The other
// side may leave before it has heard everything.
func send(c *net.TCPConn, s, end string, piecemeal bool) {
	piece := len(s)
	if piecemeal {
		_ = c.SetNoDelay(true)
		piece = 1 + len(s)/500
	}
	for len(s) > 0 {
		n := min(piece, len(s))
		if _, err := c.Write([]byte(s[:n])); err != nil {
			return
		}
		s = s[n:]
	}
	switch end {
	case "close":
		_ = c.CloseWrite()
	case "reset":
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// dial opens a connection that the test closes at its end at the latest.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func isGone(err error) bool { return err != nil && !os.IsTimeout(err) }
