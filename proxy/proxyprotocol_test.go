package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	goproxyproto "github.com/pires/go-proxyproto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// proxied makes a listener ask for PROXY headers, from those who are named.
func proxied(l *weirv1.Listener, trusted ...string) *weirv1.Listener {
	l.ProxyProtocol = &weirv1.ProxyProtocol{TrustedCidrs: trusted}
	return l
}

func plainListener() *weirv1.Listener {
	return &weirv1.Listener{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}
}

// headerOf is what another implementation writes for a client.
func headerOf(t testing.TB, version byte, client string) string {
	t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client))
	to := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 200), Port: 443}
	if from.IP.To4() == nil {
		to.IP = net.ParseIP("2001:db8::200")
	}
	b, err := goproxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// forwardedFor is a service that tells who asks.
func forwardedFor(t testing.TB) *weirv1.Service {
	return service("who", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	}))
}

func TestProxyProtocolSaysWhoAsks(t *testing.T) {
	j := new(journal)
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, gateway(proxied(plainListener(), "10.0.0.0/8", "127.0.0.1")), forwardedFor(t), route("r", "/", "who"))
	for _, c := range []struct{ header, want string }{
		{headerOf(t, 1, "192.0.2.7:4711"), "192.0.2.7"}, {headerOf(t, 2, "192.0.2.7:4711"), "192.0.2.7"},
		{headerOf(t, 1, "[2001:db8::7]:4711"), "2001:db8::7"}, {headerOf(t, 2, "[2001:db8::7]:4711"), "2001:db8::7"},
		{"PROXY UNKNOWN\r\n", "127.0.0.1"}, {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "127.0.0.1"},
	} {
		conn := dial(t, e.addr)
		conn.send(c.header)
		for range 2 { // the whole connection is that client's
			if _, body := conn.exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"); body != c.want {
				t.Errorf("after %q the service sees %q", c.header, body)
			}
			if line := j.await(t); !strings.HasPrefix(strings.Trim(fmt.Sprint(line["client"]), "["), c.want) {
				t.Errorf("the log says %v", line["client"])
			}
		}
	}
}

// A header may arrive in any pieces, and together with what follows it.
func TestProxyProtocolInPieces(t *testing.T) {
	e := startEdge(t, gateway(proxied(plainListener(), "127.0.0.0/8")), forwardedFor(t), route("r", "/", "who"))
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for version := byte(1); version <= 2; version++ {
		header := headerOf(t, version, "192.0.2.7:4711")
		whole, pieces := dial(t, e.addr), dial(t, e.addr)
		if _, body := whole.exchange(header + request); body != "192.0.2.7" {
			t.Errorf("version %d: %q", version, body)
		}
		for _, b := range []byte(header + request) {
			pieces.send(string([]byte{b}))
		}
		if _, body := pieces.answer("GET"); body != "192.0.2.7" {
			t.Errorf("version %d, byte by byte: %q", version, body)
		}
	}
}

func TestProxyProtocolBeforeTLS(t *testing.T) {
	e := startEdge(t, gateway(proxied(secureListener("https", "", nil, "shop"), "127.0.0.1")), certificate(t, "shop", "shop.example"),
		forwardedFor(t), route("r", "/", "who"))
	raw := dial(t, e.addr)
	raw.send(headerOf(t, 2, "192.0.2.7:4711"))
	c := tls.Client(raw.TCPConn, &tls.Config{ServerName: "shop.example", RootCAs: testAuthority().pool()})
	if _, body := ask(t, c, "shop.example", ""); body != "192.0.2.7" {
		t.Errorf("the service sees %q", body)
	}
}

func TestProxyProtocolIsRequired(t *testing.T) {
	refusal := func(e *edge) func() bool {
		return func() bool {
			_, text := get(t, "http://"+e.AdminAddr()+"/metrics")
			return strings.Contains(text, `reason="proxy_protocol"} 1`+"\n")
		}
	}
	for name, c := range map[string]struct {
		trusted, say string
	}{
		"no header":             {"127.0.0.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		"a broken one":          {"127.0.0.1", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		"from one not trusted":  {"10.0.0.0/8", headerOf(t, 2, "192.0.2.7:1") + "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		"one that does not end": {"127.0.0.1", "PROXY TCP4 1.2"},
		"nothing":               {"127.0.0.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := proxied(plainListener(), c.trusted)
			l.ProxyProtocol.HeaderTimeout = duration(100 * time.Millisecond)
			e := startEdgeWith(t, func(c *proxy.Config) { c.AdminAddress = "127.0.0.1:0" }, gateway(l), forwardedFor(t), route("r", "/", "who"))
			conn, err := net.Dial("tcp", e.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, c.say)
			if heard, _ := cutWith(t, conn); heard != "" {
				t.Errorf("heard %q", heard)
			}
			waitFor(t, refusal(e), func() string { return "it is not counted" })
		})
	}
}

// Who the header names is who an address is hashed by.
func TestProxyProtocolAndAffinity(t *testing.T) {
	s := farmService(t, 3, &weirv1.LoadBalancing{Hash: &weirv1.HashPolicy{Address: true}})
	e := startEdge(t, gateway(proxied(plainListener(), "127.0.0.1")), s, route("r", "/", s.Metadata.Name))
	from := func(i int) string {
		c := dial(t, e.addr)
		c.send(headerOf(t, 2, fmt.Sprintf("192.0.2.%d:%d", i, 1000+i)))
		_, body := c.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		return body
	}
	seen := map[string]bool{}
	for i := range 20 {
		first := from(i)
		seen[first] = true
		if again := from(i); again != first {
			t.Errorf("192.0.2.%d goes to %s, then to %s", i, first, again)
		}
	}
	if len(seen) < 2 {
		t.Error("all go to one endpoint")
	}
}

// behindProxy is a service that another implementation reads the headers for, and
// that counts its connections.
func behindProxy(t testing.TB) (addr string, connections chan string) {
	connections = make(chan string, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }))
	s.Listener = &goproxyproto.Listener{Listener: s.Listener, ConnPolicy: func(goproxyproto.ConnPolicyOptions) (goproxyproto.Policy, error) {
		return goproxyproto.REQUIRE, nil
	}}
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateActive || state == http.StateNew {
			select {
			case connections <- fmt.Sprintf("%p", c):
			default:
			}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), connections
}

func sending(s *weirv1.Service, version weirv1.ServiceSpec_ProxyProtocolVersion) *weirv1.Service {
	s.Spec.SendProxyProtocol = version
	return s
}

// A service is told who the client is; so a connection is that client's alone, and
// used again for it.
func TestProxyProtocolToServices(t *testing.T) {
	for _, version := range []weirv1.ServiceSpec_ProxyProtocolVersion{weirv1.ServiceSpec_V1, weirv1.ServiceSpec_V2} {
		for _, most := range []uint32{0, 1} {
			t.Run(fmt.Sprintf("%s, at most %d", version, most), func(t *testing.T) {
				addr, connections := behindProxy(t)
				s := sending(service("s", addr), version)
				if most > 0 {
					s.Spec.Limits = &weirv1.Limits{MaxConnections: most}
				}
				e := startEdge(t, s, route("r", "/", "s"))
				for range 3 {
					c := dial(t, e.addr)
					for range 3 {
						if _, body := c.exchange(getX); body != c.LocalAddr().String() {
							t.Errorf("the service sees %s, not %s", body, c.LocalAddr())
						}
					}
				}
				close(connections)
				distinct := map[string]bool{}
				for c := range connections {
					distinct[c] = true
				}
				if len(distinct) != 3 {
					t.Errorf("%d connections for 3 clients", len(distinct))
				}
			})
		}
	}
}

// Those who wait for a connection are not given another client's.
func TestProxyProtocolUnderALimit(t *testing.T) {
	addr, _ := behindProxy(t)
	s := sending(service("s", addr), weirv1.ServiceSpec_V2)
	s.Spec.Limits = &weirv1.Limits{MaxConnections: 2}
	e := startEdge(t, s, route("r", "/", "s"))
	done := make(chan error)
	for range 8 {
		c := dial(t, e.addr)
		go func() {
			var err error
			defer func() { done <- err }() // also when exchange gives up
			for range 50 {
				if _, body := c.exchange(getX); body != c.LocalAddr().String() {
					err = fmt.Errorf("the service sees %s, not %s", body, c.LocalAddr())
					return
				}
			}
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// What the one edge sends the other one reads: TCP, with both headers.
func TestProxyProtocolThroughTwoEdges(t *testing.T) {
	inner := startEdge(t, []resource.Message{gateway(proxied(plainListener(), "127.0.0.1")), forwardedFor(t), route("r", "/", "who")}...)
	outer := startEdge(t, gateway(proxied(tcpListener(), "127.0.0.1")),
		sending(service("inner", inner.addr), weirv1.ServiceSpec_V2), rawRoute("r", "raw", "inner"))
	c := dial(t, outer.addr)
	c.send(headerOf(t, 1, "[2001:db8::7]:4711"))
	if _, body := c.exchange(getX); body != "2001:db8::7" {
		t.Errorf("the service sees %q", body)
	}
}

func TestConnectionsOfAClient(t *testing.T) {
	l := proxied(plainListener(), "127.0.0.1")
	l.ConnectionLimits = &weirv1.ConnectionLimits{MaxConnections: 5, MaxConnectionsPerClient: new(uint32)}
	*l.ConnectionLimits.MaxConnectionsPerClient = 2
	e := startEdge(t, gateway(l), forwardedFor(t), route("r", "/", "who"))
	// ask connects and asks once; nil: it was closed.
	ask := func(from string) *client {
		c := dial(t, e.addr)
		_, _ = io.WriteString(c, headerOf(t, 2, from)+getX)
		if _, err := c.in.Peek(1); err != nil {
			return nil
		}
		c.answer("GET")
		return c
	}
	first, second := ask("[2001:db8::1]:1"), ask("[2001:db8::2]:2")
	if first == nil || second == nil {
		t.Fatal("two of a network are too many")
	}
	if ask("[2001:db8::3]:3") != nil {
		t.Error("a third of the same network is served")
	}
	others := []*client{ask("192.0.2.1:1"), ask("192.0.2.2:1")}
	if others[0] == nil || others[1] == nil {
		t.Error("others are not served")
	}
	// The third one's place is free a little later than it sees that it has none.
	waitFor(t, func() bool { return ask("192.0.2.3:1") != nil }, func() string { return "a fifth is not served" })
	if ask("192.0.2.4:1") != nil {
		t.Error("more than five are served in all")
	}
	first.Close()
	waitFor(t, func() bool { return ask("[2001:db8::3]:3") != nil }, func() string { return "a place that is free again is not given" })
}

// All listeners of a process share what it may have.
func TestConnectionsInAll(t *testing.T) {
	e := startEdgeWith(t, func(c *proxy.Config) { c.MaxConnections, c.AdminAddress = 2, "127.0.0.1:0" }, forwardedFor(t), route("r", "/", "who"))
	first, second := dial(t, e.addr), dial(t, e.addr)
	first.exchange(getX)
	second.exchange(getX)
	if heard, _ := cutWith(t, dial(t, e.addr)); heard != "" {
		t.Errorf("a third heard %q", heard)
	}
	if _, text := get(t, "http://"+e.AdminAddr()+"/metrics"); !strings.Contains(text, `reason="total"} 1`+"\n") {
		t.Error("it is not counted")
	}
	first.Close()
	waitFor(t, func() bool {
		c := dial(t, e.addr)
		_, _ = io.WriteString(c, getX)
		_, err := c.in.Peek(1)
		return err == nil
	}, func() string { return "a place that is free again is not given" })
}
