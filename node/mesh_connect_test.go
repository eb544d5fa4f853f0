package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// connect asks by CONNECT for a host, as clients do that take the sidecar for their proxy.
func (m *meshed) connect(name, host string) (c net.Conn, in *bufio.Reader, answer *http.Response) {
	m.t.Helper()
	c, in, answer, err := m.tryConnect(name, host)
	if err != nil {
		m.t.Fatal(err)
	}
	return c, in, answer
}

func (m *meshed) tryConnect(name, host string) (c net.Conn, in *bufio.Reader, answer *http.Response, err error) {
	if c, err = net.Dial("tcp", m.cars[name].cfg.Sidecar.Outbound); err != nil {
		return nil, nil, nil, err
	}
	m.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, nil, nil, err
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	in = bufio.NewReader(c)
	answer, err = http.ReadResponse(in, &http.Request{Method: "CONNECT"})
	return c, in, answer, err
}

// A service whose clients go by CONNECT with their proxy calls others that way, too: each
// request in the tunnel is one like any other. A rule for CONNECT makes it bytes.
func TestConnectInTheMesh(t *testing.T) {
	m := newMesh(t, "books-1 books", "shop-1 shop")
	m.awaitAnswer(200, "books-1", func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/") })

	c, in, answer := m.connect("shop-1", "books.mesh:80")
	if answer.StatusCode != 200 {
		t.Fatalf("got %s", answer.Status)
	}
	for _, test := range []struct {
		host, path string
		want       int
		text       string
	}{{"books.mesh", "/one", 200, "books-1: GET /one"}, {"books.mesh", "/two", 200, "books-1: GET /two"}, {"nobody.mesh", "/", 404, "no_service"}, {"books.mesh", "/three", 200, "/three"}} {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", test.path, test.host)
		got, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || got.StatusCode != test.want || !strings.Contains(string(body), test.text) {
			t.Errorf("%s%s is answered %s %s, %v", test.host, test.path, got.Status, body, err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("at the end came %q, %v", rest, err)
	}

	// It is that connection all the way down, and speaks whatever the listener does.
	c, in, _ = m.connect("shop-1", "books.mesh:80")
	for range 3 {
		fmt.Fprint(c, "CONNECT books.mesh:80 HTTP/1.1\r\nHost: books.mesh:80\r\nConnection: close\r\n\r\n")
		if answer, err := http.ReadResponse(in, &http.Request{Method: "CONNECT"}); err != nil || answer.StatusCode != 200 {
			t.Fatal(answer, err)
		}
	}
	client := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	client.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(client.CloseIdleConnections)
	req, _ := http.NewRequest("GET", "http://books.mesh/two", nil)
	if answer, err := client.RoundTrip(req); err != nil {
		t.Error(err)
	} else if body, err := io.ReadAll(answer.Body); err != nil || answer.Proto != "HTTP/2.0" || !strings.HasPrefix(string(body), "books-1: GET /two") {
		t.Errorf("by HTTP/2 it is answered %s %s, %v", answer.Proto, body, err)
	}

	for _, refused := range []struct {
		host string
		want int
		text string
	}{
		{"nobody.mesh:80", 404, "no_service"}, {"example.com:443", 404, "no_service"},
		{"books.mesh:443", 501, "called by http, not by https"}, {"books.mesh", 400, ""},
	} {
		_, _, answer := m.connect("shop-1", refused.host)
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != refused.want || !strings.Contains(string(body), refused.text) {
			t.Errorf("%s is answered %s %s, %v", refused.host, answer.Status, body, err)
		}
		if refused.want != 400 && answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s is answered with %v", refused.host, answer.Header)
		}
	}

	// Bytes, to a Service that has endpoints of its own.
	db, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	go func() {
		for {
			c, err := db.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "welcome ")
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	tunnels := func(service string) *weirv1.Resource {
		return resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: service + "-tunnels"}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Kind: "Service", Name: service}},
			Rules:      []*weirv1.RouteRule{{Matches: []*weirv1.RouteMatch{{Method: "CONNECT"}}, BackendRefs: []*weirv1.BackendRef{{Name: service}}}},
		}})
	}
	apply(t, m.api, resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "db"}, Spec: &weirv1.ServiceSpec{
		Endpoints: []*weirv1.Endpoint{{Address: db.Addr().String()}}}}), tunnels("db"), tunnels("shop"))
	heard := func() (int, string) {
		c, in, answer := m.connect("shop-1", "db.mesh:5432")
		if answer.StatusCode != 200 {
			return answer.StatusCode, answer.Status
		}
		_, _ = io.WriteString(c, "hello")
		_ = c.(*net.TCPConn).CloseWrite()
		all, err := io.ReadAll(in)
		return 200, fmt.Sprint(string(all), err)
	}
	m.awaitAnswer(200, "welcome hello<nil>", heard)
	// Sidecars carry requests, not bytes.
	m.awaitAnswer(501, "no_connect", func() (int, string) {
		_, _, answer := m.connect("shop-1", "shop.mesh:80")
		body, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(body)
	})
}
