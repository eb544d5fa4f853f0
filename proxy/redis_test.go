package proxy_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func startRedis(t *testing.T) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func bytesService(name string, addresses ...string) *weirv1.Service {
	s := service(name, addresses...)
	s.Spec.Protocol = weirv1.ServiceSpec_TCP
	return s
}

// TestPolicyAsksRedis that it was granted as a service of bytes, by the proxy's own
// balancing and limits; and follows what the configuration makes of it.
func TestPolicyAsksRedis(t *testing.T) {
	m, second := startRedis(t), startRedis(t)
	m.Set("who", "first")
	second.Set("who", "second")
	full := bytesService("full", m.Addr())
	full.Spec.Limits = &weirv1.Limits{MaxConnections: 1, MaxRequests: 1}
	secret := startRedis(t)
	grants := []*weirv1.ServiceGrant{{Name: "cache", As: "outbound|6379||redis.dns"}, {Name: "none"}, {Name: "s"}, {Name: "full"}}
	e := startCaller(t, grants, service("s", upstreamServer(t, took)), bytesService("cache", m.Addr()), bytesService("none"), full,
		bytesService("secret", secret.Addr()), route("r", "/", "s"))
	const cache = "request: redis-init 60000 outbound|6379||redis.dns; request: redis outbound|6379||redis.dns "
	for _, c := range []struct {
		name, do string
		status   int
		body     string
	}{
		{"a command", cache + "GET who" + waitAndTake, 200, "redis 0 0,11,0  up= body=$5|first| trailer= code=0"},
		{"a service without an endpoint", "request: redis-init 60000 none; request: redis none PING" + waitAndTake, 200, "redis 1 0,0,0  up= body= trailer= code=14 no_endpoint"},
		{"a limit", "request: redis-init 60000 full; request: redis full SET a 1" + waitAndTake, 200, "redis 0"},
		{"a limit again", "request: redis full GET a" + waitAndTake, 200, "body=$1|1|"},
		{"an answer by what was answered", cache + "GET who; request: wait 1; answer: reply 429 no", 429, "no"},
		{"a service of HTTP", "request: redis-init 1 s; request: redis s PING; request: reply 500 refused", 500, "refused"},
		{"a service that is not granted", "request: redis-init 1 secret; request: redis secret PING; request: reply 500 refused", 500, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := tell(t, e, c.do)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("%d %q, want %d %q", status, body, c.status, c.body)
			}
		})
	}
	if n := secret.TotalConnectionCount(); n != 0 {
		t.Errorf("%d connections to a service that is not granted", n)
	}
	if n := m.TotalConnectionCount(); n != 2 { // one to each service
		t.Errorf("%d connections", n)
	}

	e.apply(bytesService("cache", second.Addr()))
	if _, body := tell(t, e, cache+"GET who"+waitAndTake); !strings.Contains(body, "$6|second|") {
		t.Errorf("the service has moved: %q", body)
	}
	e.apply(callerPolicy(nil))
	if status, body := tell(t, e, cache+"GET who; request: reply 500 refused"); status != 500 || body != "refused" {
		t.Errorf("no longer granted: %d %q", status, body)
	}
	waitFor(t, func() bool { return second.CurrentConnectionCount() == 0 },
		func() string { return "a connection of a grant that is gone is still open" })
}

// TestShutdownEndsRedis: a plugin that waits for an answer does not hold the proxy up.
func TestShutdownEndsRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := startCaller(t, []*weirv1.ServiceGrant{{Name: "silent"}},
		service("s", upstreamServer(t, took)), bytesService("silent", l.Addr().String()), route("r", "/", "s"))
	if status, _ := tell(t, e, "request: redis-init 300000 silent; request: redis silent PING; request: reply 200 on"); status != 200 {
		t.Fatal(status)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := e.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if said, err := io.ReadAll(conn); err != nil || string(said) != "*1\r\n$4\r\nPING\r\n" {
		t.Errorf("the server heard %q, then %v", said, err)
	}
}
