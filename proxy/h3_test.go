package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// h3Client speaks HTTP/3 with the edge.
func (e *edge) h3Client(change ...func(*tls.Config)) *http.Client {
	config := &tls.Config{RootCAs: testAuthority().pool(), ServerName: "shop.example"}
	for _, c := range change {
		c(config)
	}
	transport := &http3.Transport{
		TLSClientConfig: config,
		Dial: func(ctx context.Context, _ string, tls *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, e.udp, tls, cfg)
		},
		DisableCompression: true,
	}
	e.t.Cleanup(func() { transport.Close() })
	return &http.Client{Transport: transport}
}

func TestHTTP3(t *testing.T) {
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	client := e.h3Client()
	for range 3 {
		resp, body := do(t, client, newRequest(t, "GET", "https://shop.example/path?q", nil))
		if resp.ProtoMajor != 3 || resp.StatusCode != 200 || body != "GET shop.example/path?q" || resp.Header.Get("Seen-Proto") != "https" {
			t.Errorf("got %s %s, %q, %v", resp.Proto, resp.Status, body, resp.Header)
		}
		if resp.Header.Get("Alt-Svc") != "" {
			t.Errorf("a client that speaks HTTP/3 is told of it: %v", resp.Header)
		}
	}
}

// Clients learn of HTTP/3 by the answers that they get without it.
func TestAltSvc(t *testing.T) {
	const offered = `h3=":443"; ma=86400`
	off := secureListener("off", "off.example", nil, "shop")
	off.Http3 = new(bool)
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop"), off), certificate(t, "shop", "shop.example", "off.example"),
		service("own", upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Alt-Svc", "clear") })),
		echo(t), route("r", "/", "echo"), route("own", "/own", "own"))
	get := func(host, path string) string {
		t.Helper()
		resp, _ := do(t, e.h2ClientFor(host), newRequest(t, "GET", "https://"+host+path, nil))
		return resp.Header.Get("Alt-Svc")
	}
	if got := get("shop.example", "/"); got != offered {
		t.Errorf("HTTP/2: got %q", got)
	}
	if got := get("shop.example", "/own"); got != "clear" {
		t.Errorf("a service's own word is replaced by %q", got)
	}
	if got := get("off.example", "/"); got != "" {
		t.Errorf("where it is off: %q", got)
	}
	resp, _ := ask(t, mustDialTLS(e, "shop.example"), "shop.example", "")
	if got := resp.Header.Get("Alt-Svc"); got != offered {
		t.Errorf("HTTP/1.1: got %q", got)
	}
	if _, err := e.h3Client(func(c *tls.Config) { c.ServerName = "off.example" }).Get("https://off.example/"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("HTTP/3 where it is off: %v", err)
	}
}

// h2ClientFor speaks HTTP/2 with the edge, and wants a name.
func (e *edge) h2ClientFor(name string) *http.Client {
	client := e.h2Client(true)
	client.Transport.(*http.Transport).TLSClientConfig.ServerName = name
	return client
}

// Where a PROXY protocol header has to say who the client is, no one gets in
// without, by UDP neither.
func TestNoHTTP3WhereTheProxyProtocolIsSpoken(t *testing.T) {
	e := startEdge(t, gateway(proxied(secureListener("https", "", nil, "shop"), "127.0.0.1")), certificate(t, "shop", "shop.example"),
		echo(t), route("r", "/", "echo"))
	if e.udp != "" {
		t.Error("it is spoken")
	}
	c := dial(t, e.addr)
	io.WriteString(c, headerOf(t, 2, "192.0.2.1:1"))
	secured := tls.Client(c.TCPConn, &tls.Config{RootCAs: testAuthority().pool(), ServerName: "shop.example"})
	resp, _ := ask(t, secured, "shop.example", "")
	if resp.StatusCode != 200 || resp.Header.Get("Alt-Svc") != "" {
		t.Errorf("got %s, %v", resp.Status, resp.Header)
	}
}

// HTTP/3 comes and goes with the configuration; HTTP/2 does not notice.
func TestHTTP3IsTurnedOffAndOn(t *testing.T) {
	l := secureListener("https", "", nil, "shop")
	e := startEdge(t, gateway(l), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	before := e.h3Client()
	do(t, before, newRequest(t, "GET", "https://shop.example/", nil))
	for _, on := range []bool{false, true, false} {
		l := secureListener("https", "", nil, "shop")
		l.Http3 = &on
		e.apply(gateway(l))
		resp, _ := do(t, e.h2Client(true), newRequest(t, "GET", "https://shop.example/", nil))
		if told := resp.Header.Get("Alt-Svc") != ""; resp.StatusCode != 200 || told != on {
			t.Errorf("HTTP/2 with HTTP/3 %v: %s, %v", on, resp.Status, resp.Header)
		}
		if !on {
			waitFor(t, e.closedUDP, func() string { return "the socket stays open" })
		} else if resp, _ := do(t, e.h3Client(), newRequest(t, "GET", "https://shop.example/", nil)); resp.StatusCode != 200 {
			t.Errorf("HTTP/3 again: %s", resp.Status)
		}
	}
}

// closedUDP reports whether the port that HTTP/3 was served on last is free.
func (e *edge) closedUDP() bool {
	c, err := net.ListenPacket("udp", e.udp)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Where UDP cannot be had the listener serves without, says so, and tries again.
func TestHTTP3WithoutItsPort(t *testing.T) {
	var free atomic.Bool
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.AdminAddress = "127.0.0.1:0"
		listen := c.ListenPacket
		c.ListenPacket = func(network, address string) (net.PacketConn, error) {
			if !free.Load() {
				return nil, syscall.EADDRINUSE
			}
			return listen(network, address)
		}
	}, certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
	e.apply(gateway(secureListener("https", "", nil, "shop")))
	if _, body := get(t, "http://"+e.AdminAddr()+"/readyz"); !strings.Contains(body, "public/https for HTTP/3 (it serves without): address already in use") {
		t.Errorf("it is not said: %s", body)
	}
	client := e.h2Client(true)
	resp, _ := do(t, client, newRequest(t, "GET", "https://shop.example/", nil))
	if resp.StatusCode != 200 || resp.Header.Get("Alt-Svc") != "" {
		t.Errorf("got %s, %v", resp.Status, resp.Header)
	}
	free.Store(true)
	waitFor(t, func() bool {
		resp, _ := do(t, client, newRequest(t, "GET", "https://shop.example/", nil))
		return resp.Header.Get("Alt-Svc") != ""
	}, func() string { return "it is not tried again" })
	if resp, _ := do(t, e.h3Client(), newRequest(t, "GET", "https://shop.example/", nil)); resp.StatusCode != 200 {
		t.Errorf("HTTP/3: %s", resp.Status)
	}
}

func TestHTTP3ByName(t *testing.T) {
	e := startEdge(t, gateway(secureListener("a", "a.example", nil, "a"), secureListener("w", "*.w.example", nil, "w")),
		certificate(t, "a", "a.example"), certificate(t, "w", "*.w.example"), echo(t), route("r", "/", "echo"))
	for _, c := range []struct {
		serverName, host string
		want             int
	}{
		{"a.example", "a.example", 200}, {"x.w.example", "x.w.example", 200}, {"x.w.example", "y.w.example", 200},
		{"a.example", "x.w.example", 421}, {"x.w.example", "a.example", 421}, {"b.example", "b.example", 0},
	} {
		t.Run(c.serverName+" asked for "+c.host, func(t *testing.T) {
			client := e.h3Client(func(cfg *tls.Config) { cfg.ServerName = c.serverName })
			resp, err := client.Get("https://" + c.host + "/")
			switch {
			case c.want == 0 && (err == nil || !strings.Contains(err.Error(), "unrecognized name")):
				t.Errorf("a name that nobody serves: %v", err)
			case c.want != 0 && err != nil:
				t.Error(err)
			case c.want != 0:
				resp.Body.Close()
				if resp.StatusCode != c.want {
					t.Errorf("got %s", resp.Status)
				}
			}
		})
	}
}

func TestHTTP3ClientCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		client func(*tls.Config)
		ok     bool
	}{
		"none": {func(*tls.Config) {}, false},
		"a good one": {func(c *tls.Config) {
			c.Certificates = []tls.Certificate{testAuthority().issue(t, ecKey(t), "client.example")}
		}, true},
		"a stranger's": {func(c *tls.Config) {
			c.Certificates = []tls.Certificate{newAuthority("Stranger").issue(t, ecKey(t), "client.example")}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			listener := secureListener("https", "", &weirv1.ListenerTLS{ClientValidation: &weirv1.ClientValidation{
				CaCertificates: testAuthority().pem(), Forward: true}}, "shop")
			e := startEdge(t, gateway(listener), certificate(t, "shop", "shop.example"), echo(t), route("r", "/", "echo"))
			resp, err := e.h3Client(c.client).Get("https://shop.example/")
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if c.ok {
				defer resp.Body.Close()
				io.Copy(io.Discard, resp.Body)
				if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Seen-Client"), "DNS=client.example") {
					t.Errorf("got %s, %v", resp.Status, resp.Header)
				}
			}
		})
	}
}

// A client that is not Go: ngtcp2's, as Debian has it.
func TestHTTP3WithNgtcp2(t *testing.T) {
	tool, err := exec.LookPath("gtlsclient")
	if err != nil {
		t.Skip("gtlsclient is not installed (apt-get install ngtcp2-client)")
	}
	large := strings.Repeat("0123456789abcdef", 64<<10)
	e := startEdge(t, gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"),
		service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-Seen", fmt.Sprintf("%s %d", r.Method, len(body)))
			io.WriteString(w, large)
		})), route("r", "/", "s"))
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, []byte(large), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(e.udp)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"GET":       {nil, "GET 0"},
		"an upload": {[]string{"-m", "POST", "-d", upload}, fmt.Sprintf("POST %d", len(large))},
		"many":      {[]string{"-n", "50"}, "GET 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args := append([]string{"--exit-on-all-streams-close", "--no-quic-dump", "--download", dir}, c.args...)
			out, err := exec.CommandContext(t.Context(), tool, append(args, host, port, "https://shop.example/file")...).CombinedOutput()
			got, _ := os.ReadFile(filepath.Join(dir, "file")) // an error is a file that is not right
			if err != nil || !strings.Contains(string(out), "[:status: 200]") || !strings.Contains(string(out), "[x-seen: "+c.want+"]") || string(got) != large {
				t.Errorf("%v, %d bytes\n%s", err, len(got), out)
			}
		})
	}
}
