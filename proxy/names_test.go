package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// twins listens on one port of two loopback addresses.
func twins(t *testing.T) (a, b net.Listener) {
	for range 50 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", a.Addr().(*net.TCPAddr).Port))
		if err == nil {
			t.Cleanup(func() { a.Close(); b.Close() })
			return a, b
		}
		a.Close()
	}
	t.Skip("no port is free on both of two loopback addresses")
	return nil, nil
}

// When a name leads elsewhere, what is under way is answered, idle connections
// are closed, and new requests go to the new address.
func TestAddressesThatAreGoneAreDrained(t *testing.T) {
	a, b := twins(t)
	asked, answer, gone := make(chan struct{}), make(chan struct{}), make(chan struct{}, 10)
	go func() {
		for {
			c, err := a.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(2 * time.Minute))
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						gone <- struct{}{}
						return
					}
					if r.URL.Path == "/slow" {
						asked <- struct{}{}
						<-answer
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
				}
			}()
		}
	}()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") })}
	go server.Serve(b)
	defer server.Close()

	var moved atomic.Bool
	s := service("s", fmt.Sprintf("books.internal:%d", a.Addr().(*net.TCPAddr).Port))
	s.Spec.Dns = &weirv1.DnsResolution{RefreshRate: duration(5 * time.Millisecond)}
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
			if moved.Load() {
				return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	}, s, route("r", "/", "s"))
	waitFor(t, func() bool { _, body := get(t, e.url("/")); return body == "old" }, func() string { return "it is not resolved" })

	slow := dial(t, e.addr)
	slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n") // takes the idle connection
	<-asked
	if _, body := get(t, e.url("/")); body != "old" { // makes another one
		t.Errorf("got %s", body)
	}
	moved.Store(true)
	<-gone // the idle one
	if _, body := get(t, e.url("/")); body != "new" {
		t.Errorf("got %s", body)
	}
	answer <- struct{}{}
	if _, body := slow.answer("GET"); body != "old" {
		t.Errorf("what was under way got %s", body)
	}
	<-gone // the other, once it came back
}
