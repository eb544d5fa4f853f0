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
	"testing"
	"time"
)

// h2Client speaks HTTP/2 with the edge, by TLS or in the clear.
func (e *edge) h2Client(secure bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(secure)
	protocols.SetUnencryptedHTTP2(!secure)
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{RootCAs: testAuthority().pool(), ServerName: "shop.example"},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, e.addr)
		},
		DisableCompression: true,
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// both runs a test of HTTP/2 by TLS and in the clear.
func both(t *testing.T, test func(t *testing.T, secure bool, scheme string)) {
	t.Run("TLS", func(t *testing.T) { test(t, true, "https") })
	t.Run("in the clear", func(t *testing.T) { test(t, false, "http") })
}

func TestHTTP2(t *testing.T) {
	both(t, func(t *testing.T, secure bool, scheme string) {
		e := startEdge(t, echo(t), route("r", "/", "echo"))
		if secure {
			e.apply(certificate(t, "shop", "shop.example"), gateway(secureListener("https", "", nil, "shop")))
		}
		client := e.h2Client(secure)
		for range 3 {
			resp, err := client.Get(scheme + "://shop.example/path?q")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.ProtoMajor != 2 || resp.StatusCode != 200 || string(body) != "GET shop.example/path?q" || resp.Header.Get("Seen-Proto") != scheme {
				t.Errorf("got %s %s, %q, %v", resp.Proto, resp.Status, body, resp.Header)
			}
		}
	})
}

// h2spec is not ours; where it is installed (make tools), it has to be content.
func TestH2Spec(t *testing.T) {
	tool, err := filepath.Abs("../.bin/h2spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skip("h2spec is not installed")
	}
	both(t, func(t *testing.T, secure bool, _ string) {
		e := startEdge(t, echo(t), route("r", "/", "echo"))
		if secure {
			e.apply(certificate(t, "shop", "shop.example"), gateway(secureListener("https", "", nil, "shop")))
		}
		host, port, _ := net.SplitHostPort(e.addr)
		args := []string{"-h", host, "-p", port, "--timeout", "30"}
		if secure {
			args = append(args, "-t", "-k")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
		if text := string(out); err != nil || !strings.Contains(text, " 0 failed") {
			t.Errorf("%v\n%s", err, text)
		} else {
			fmt.Fprintln(t.Output(), text[strings.LastIndex(strings.TrimSpace(text), "\n"):])
		}
	})
}
