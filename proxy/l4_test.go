package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

func tcpListener() *weirv1.Listener {
	return &weirv1.Listener{Name: "raw", Port: 5432, Protocol: weirv1.Listener_TCP}
}

func tlsListener(name, hostname string, mode weirv1.ListenerTLS_Mode, certificates ...string) *weirv1.Listener {
	l := secureListener(name, hostname, &weirv1.ListenerTLS{Mode: mode}, certificates...)
	l.Protocol = weirv1.Listener_TLS
	return l
}

// rawRoute attaches a route for bytes to a listener.
func rawRoute(name, section, to string, hostnames ...string) *weirv1.Route {
	return &weirv1.Route{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: "public", SectionName: section}}, Hostnames: hostnames,
		Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: to}}}}}}
}

// parrot is a TCP server that says its name, then repeats what it hears until its
// client ends, and then says goodbye.
func parrot(t testing.TB, name string) string {
	return tcpServer(t, func(c net.Conn) { speak(c, name) })
}

// tcpServer hands each connection to f.
func tcpServer(t testing.TB, f func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go f(c)
		}
	}()
	return l.Addr().String()
}

func speak(c net.Conn, name string) {
	defer c.Close()
	fmt.Fprintln(c, name)
	_, _ = io.Copy(c, c)
	fmt.Fprintln(c, "goodbye")
}

// securedParrot speaks TLS itself.
func securedParrot(t testing.TB, name string) string {
	issued := testAuthority().issue(t, ecKey(t), name)
	return tcpServer(t, func(c net.Conn) { speak(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{issued}}), name) })
}

// talk says something, ends, and reads all there is to hear.
func talk(t testing.TB, c net.Conn, say string) string {
	t.Helper()
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	heard, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("after %q: %v", heard, err)
	}
	return string(heard)
}

// journal is an access log to look at.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// await waits for a line and returns it.
func (j *journal) await(t testing.TB) (line map[string]any) {
	t.Helper()
	waitFor(t, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		s, err := j.text.ReadString('\n')
		return err == nil && json.Unmarshal([]byte(s), &line) == nil
	}, func() string { return "there is no line in the access log" })
	return line
}

// watched starts an edge with an access log and an admin address.
func watched(t *testing.T, resources ...resource.Message) (*edge, *journal) {
	j := new(journal)
	return startEdgeWith(t, func(c *proxy.Config) {
		c.AdminAddress = "127.0.0.1:0"
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, resources...), j
}

func TestTCP(t *testing.T) {
	e, log := watched(t, gateway(tcpListener()), service("db", parrot(t, "db")), rawRoute("r", "raw", "db"))
	c := dial(t, e.addr)
	if heard := talk(t, c.TCPConn, "hello\n"); heard != "db\nhello\ngoodbye\n" {
		t.Errorf("heard %q", heard)
	}
	line := log.await(t)
	for key, want := range map[string]any{"route": "default/r", "service": "default/db", "protocol": "TCP", "bytes_in": 6.0, "bytes_out": 17.0,
		"client": c.LocalAddr().String()} {
		if line[key] != want {
			t.Errorf("the log says %s: %v, want %v", key, line[key], want)
		}
	}
	if line["connection_id"] == nil || line["details"] != nil || line["error"] != nil {
		t.Errorf("the log says %v", line)
	}
	_, text := get(t, "http://"+e.AdminAddr()+"/metrics")
	for _, want := range []string{`weir_connections_total{result="done",route="default/r"} 1`, `weir_connections_active{route="default/r"} 0`,
		`weir_connection_bytes_total{direction="in",route="default/r"} 6`, `weir_connection_bytes_total{direction="out",route="default/r"} 17`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
}

// cutWith reads to the end of a connection and says how it ended.
func cutWith(t testing.TB, c net.Conn) (heard string, broken bool) {
	t.Helper()
	b, err := io.ReadAll(c)
	return string(b), err != nil
}

func TestTCPThatDoesNotComeAbout(t *testing.T) {
	for name, c := range map[string]struct {
		resources []resource.Message
		details   string
	}{
		"no route":           {[]resource.Message{service("db", parrot(t, "db"))}, "no_route"},
		"a route for HTTP":   {[]resource.Message{service("db", parrot(t, "db")), route("r", "/", "db")}, "no_route"},
		"no endpoint":        {[]resource.Message{service("db"), rawRoute("r", "raw", "db")}, "no_endpoint"},
		"nobody is there":    {[]resource.Message{service("db", deadAddress(t)), rawRoute("r", "raw", "db")}, "connect_failed"},
		"a limit is reached": {[]resource.Message{limited(service("db", parrot(t, "db")), 1), rawRoute("r", "raw", "db")}, "overloaded"},
		"policies are for HTTP": {append(plugins("mark"), service("db", parrot(t, "db")), rawRoute("r", "raw", "db"),
			attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN)), "policies_need_http"},
	} {
		t.Run(name, func(t *testing.T) {
			j := new(journal)
			e := startEdgeWith(t, func(cfg *proxy.Config) {
				cfg.Policies = new(markers)
				cfg.Access = telemetry.NewAccessLog(j, cfg.Metrics.LogLost)
				t.Cleanup(cfg.Access.Close)
			}, append([]resource.Message{gateway(tcpListener())}, c.resources...)...)
			if c.details == "overloaded" {
				dial(t, e.addr).in.ReadString('\n') // it holds the one place that there is
			}
			if conn, err := net.Dial("tcp", e.addr); err == nil { // else it was broken off already
				if heard, broken := cutWith(t, conn); heard != "" || !broken {
					t.Errorf("heard %q, broken %v", heard, broken)
				}
				conn.Close()
			}
			if line := j.await(t); line["details"] != c.details {
				t.Errorf("the log says %v", line)
			}
		})
	}
}

// A service that lets a client in and does not shake hands is given as long as a
// connection may take.
func TestTCPToASilentServiceOfTLS(t *testing.T) {
	s := service("db", tcpServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c); c.Close() }))
	s.Spec.Tls, s.Spec.ConnectTimeout = &weirv1.UpstreamTLS{InsecureSkipVerify: true}, duration(50*time.Millisecond)
	e, j := watched(t, gateway(tcpListener()), s, rawRoute("r", "raw", "db"))
	defer dial(t, e.addr).Close()
	if line := j.await(t); line["details"] != "connect_timeout" {
		t.Errorf("the log says %v", line)
	}
}

// What breaks off on one side breaks off on the other, which must not take it for
// the end.
func TestTCPBreaksOffTowardsAServiceOfTLS(t *testing.T) {
	issued, ended := testAuthority().issue(t, ecKey(t), "db"), make(chan error, 1)
	s := service("db", tcpServer(t, func(c net.Conn) {
		defer c.Close()
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{issued}})
		_, _ = io.WriteString(secured, "db\n")
		_, err := io.Copy(io.Discard, secured)
		ended <- err
	}))
	s.Spec.Tls = &weirv1.UpstreamTLS{InsecureSkipVerify: true}
	e := startEdge(t, gateway(tcpListener()), s, rawRoute("r", "raw", "db"))
	c := dial(t, e.addr)
	io.WriteString(c, "the first half")
	if _, err := c.in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	breakOff(c.TCPConn)
	if err := <-ended; err == nil {
		t.Error("the service takes it for the end")
	}
}

func breakOff(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

func limited(s *weirv1.Service, most uint32) *weirv1.Service {
	s.Spec.Limits = &weirv1.Limits{MaxRequests: most}
	return s
}

// An endpoint that cannot be reached costs a client nothing.
func TestTCPFailsOver(t *testing.T) {
	e := startEdge(t, gateway(tcpListener()), service("db", deadAddress(t), parrot(t, "db"), deadAddress(t)), rawRoute("r", "raw", "db"))
	for range 20 {
		if heard := talk(t, dial(t, e.addr).TCPConn, "x"); heard != "db\nxgoodbye\n" {
			t.Errorf("heard %q", heard)
		}
	}
}

func TestTCPIdle(t *testing.T) {
	r := rawRoute("r", "raw", "db")
	r.Spec.Rules[0].Timeouts = &weirv1.RouteTimeouts{Idle: duration(100 * time.Millisecond)}
	e, log := watched(t, gateway(tcpListener()), service("db", parrot(t, "db")), r)
	if heard, broken := cutWith(t, dial(t, e.addr)); heard != "db\n" || !broken {
		t.Errorf("heard %q, broken %v", heard, broken)
	}
	if line := log.await(t); line["details"] != "idle" {
		t.Errorf("the log says %v", line)
	}
}

// Those who are connected stay so while the configuration changes, and while the
// edge drains.
func TestTCPDrains(t *testing.T) {
	e := startEdge(t, gateway(tcpListener()), service("db", parrot(t, "one")), rawRoute("r", "raw", "db"))
	c := dial(t, e.addr)
	if line, err := c.in.ReadString('\n'); line != "one\n" {
		t.Fatalf("heard %q, %v", line, err)
	}
	e.apply(service("db", parrot(t, "two")))
	if heard := talk(t, dial(t, e.addr).TCPConn, ""); heard != "two\ngoodbye\n" {
		t.Errorf("a new one heard %q", heard)
	}
	done := make(chan error)
	go func() { done <- e.Shutdown(t.Context()) }()
	waitFor(t, func() bool {
		other, err := net.Dial("tcp", e.addr)
		if err == nil {
			other.Close()
		}
		return err != nil
	}, func() string { return "it accepts still" })
	c.send("still here\n")
	if line, err := c.in.ReadString('\n'); line != "still here\n" {
		t.Errorf("heard %q, %v", line, err)
	}
	c.CloseWrite()
	if rest, err := io.ReadAll(c.in); string(rest) != "goodbye\n" || err != nil {
		t.Errorf("heard %q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTCPIsCutWhenThereIsNoMoreTime(t *testing.T) {
	e, log := watched(t, gateway(tcpListener()), service("db", parrot(t, "db")), rawRoute("r", "raw", "db"))
	c := dial(t, e.addr)
	c.in.ReadString('\n')
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.in.ReadByte(); err == nil {
		t.Error("it is open")
	}
	if line := log.await(t); line["details"] != "cut" {
		t.Errorf("the log says %v", line)
	}
}

// startByName serves three names on one port: two pass through to services that
// have their certificates, one ends at the edge.
func startByName(t *testing.T) (*edge, *journal) {
	return watched(t,
		gateway(tlsListener("a", "a.example", weirv1.ListenerTLS_PASSTHROUGH), tlsListener("w", "*.w.example", weirv1.ListenerTLS_PASSTHROUGH),
			tlsListener("here", "here.example", weirv1.ListenerTLS_TERMINATE, "here")),
		certificate(t, "here", "here.example"),
		service("a", securedParrot(t, "a.example")), service("w", securedParrot(t, "*.w.example")), service("plain", parrot(t, "plain")),
		rawRoute("a", "a", "a"), rawRoute("w", "w", "w", "x.w.example"), rawRoute("here", "here", "plain"))
}

func TestTLSByName(t *testing.T) {
	e, log := startByName(t)
	if e.udp != "" {
		t.Error("HTTP/3 is spoken where bytes are relayed")
	}
	for _, c := range []struct{ name, says, route, version string }{
		{"a.example", "a.example", "default/a", ""}, {"A.example", "a.example", "default/a", ""},
		{"x.w.example", "*.w.example", "default/w", ""}, {"here.example", "plain", "default/here", "TLSv1.3"},
	} {
		conn := mustDialTLS(e, c.name)
		if heard := talk(t, conn, "hello\n"); heard != c.says+"\nhello\ngoodbye\n" {
			t.Errorf("%s heard %q", c.name, heard)
		}
		conn.Close()
		line := log.await(t)
		if line["route"] != c.route || line["protocol"] != "TLS" || line["server_name"] != strings.ToLower(c.name) || fmt.Sprint(line["tls_version"]) != orNil(c.version) {
			t.Errorf("the log says %v", line)
		}
	}
}

func orNil(s string) string {
	if s == "" {
		return "<nil>"
	}
	return s
}

func TestTLSForNobody(t *testing.T) {
	e, log := startByName(t)
	for name, details := range map[string]string{"elsewhere.example": "unrecognized_name", "y.w.example": "unrecognized_name", "": "unrecognized_name"} {
		_, err := e.dialTLS(name, func(c *tls.Config) { c.InsecureSkipVerify = true })
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v", name, err)
		}
		if line := log.await(t); line["details"] != details {
			t.Errorf("the log says %v", line)
		}
	}
	for _, said := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x00", "\x16\x03\x01\x00\x05\x01\x02\x00\x00\x00"} {
		c := dial(t, e.addr)
		c.send(said)
		if heard, broken := cutWith(t, c); heard != "" || !broken {
			t.Errorf("%q heard %q, broken %v", said, heard, broken)
		}
		if line := log.await(t); line["details"] != "no_client_hello" {
			t.Errorf("the log says %v", line)
		}
	}
}

// A client that does not finish its first word is let go.
func TestTLSHelloTimesOut(t *testing.T) {
	e := startEdgeWith(t, impatient, gateway(tlsListener("a", "", weirv1.ListenerTLS_PASSTHROUGH)),
		service("a", securedParrot(t, "a.example")), rawRoute("a", "a", "a"))
	c := dial(t, e.addr)
	c.send("\x16\x03\x01\x02\x00")
	if heard, broken := cutWith(t, c); heard != "" || !broken {
		t.Errorf("heard %q, broken %v", heard, broken)
	}
}

// shredder writes a byte at a time, so that a hello arrives in many pieces.
type shredder struct{ net.Conn }

func (s shredder) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestTLSHelloInPieces(t *testing.T) {
	e, _ := startByName(t)
	c := tls.Client(shredder{dial(t, e.addr).TCPConn}, &tls.Config{ServerName: "a.example", RootCAs: testAuthority().pool()})
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "a.example\n" {
		t.Errorf("heard %q, %v", line, err)
	}
}

// Much goes through unchanged, both ways at once.
func TestTCPInBulk(t *testing.T) {
	e := startEdge(t, gateway(tcpListener()), service("db", tcpServer(t, func(c net.Conn) { defer c.Close(); _, _ = io.Copy(c, c) })), rawRoute("r", "raw", "db"))
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	c := dial(t, e.addr)
	var sender sync.WaitGroup
	sender.Go(func() { _, _ = c.Write(want); c.CloseWrite() })
	got, err := io.ReadAll(c.in)
	if sender.Wait(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(want), err)
	}
}

// A listener that ends TLS answers an authority that checks a name, too.
func TestTLSChallengeOfAListenerForBytes(t *testing.T) {
	e, log := watched(t, gateway(tlsListener("here", "", weirv1.ListenerTLS_TERMINATE, "shop")), challenged(t,
		&weirv1.AcmeChallenge{Type: weirv1.Acme_TLS_ALPN_01, Hostname: "shop.example", Token: "t", KeyAuthorization: "t.thumb"}))
	conn, err := tls.Dial("tcp", e.addr, &tls.Config{ServerName: "shop.example", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if line := log.await(t); line["details"] != "acme_challenge" {
		t.Errorf("the log says %v", line)
	}
}
