package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/overload"
)

const memoryChild = "WEIR_TEST_MEMORY_CHILD"

// When memory is short new work is turned away, what is under way goes on, and
// once there is memory again all is as before. A process of its own is driven
// there, because its limit is.
func TestShedsWhenMemoryIsShort(t *testing.T) {
	if os.Getenv(memoryChild) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestShedsWhenMemoryIsShort$", "-test.v")
		child.Env = append(os.Environ(), memoryChild+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const limit = 256 << 20
	e := startEdgeWith(t, func(c *proxy.Config) {
		c.AdminAddress, c.Policies = "127.0.0.1:0", new(holder)
		c.Overload = overload.Start(limit, c.Logger)
		t.Cleanup(c.Overload.Close)
	}, append(plugins("mark"), service("s", upstreamServer(t, seen)), route("plain", "/plain", "s"), route("held", "/held", "s"),
		attach("a", "mark", "Route", "held", weirv1.PolicySpec_AUTHN))...)
	ask := dial(t, e.addr) // connected before, and kept
	const plain = "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"
	if resp, body := ask.exchange(plain); resp.StatusCode != 200 {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}

	// Each of these makes the edge hold a body, of which the last byte is to come.
	const size = 1 << 20
	block := make([]byte, size-1)
	var holding []*client
	for shedding := false; !shedding; {
		if len(holding) > limit/size {
			t.Fatal("as much as may be is held, and nothing is turned away")
		}
		h := dial(t, e.addr)
		if _, err := fmt.Fprintf(h, "POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size); err == nil {
			_, _ = h.Write(block)
			holding = append(holding, h)
		}
		resp, body := ask.exchange(plain)
		if shedding = resp.StatusCode == 503; shedding {
			if resp.Header.Get("Retry-After") == "" || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "overloaded") {
				t.Errorf("got %v %s", resp.Header, body)
			}
		}
	}
	if c, err := net.Dial("tcp", e.addr); err == nil {
		if heard, _ := cutWith(t, c); heard != "" {
			t.Errorf("a new connection heard %q", heard)
		}
		c.Close()
	}
	_, text := get(t, "http://"+e.AdminAddr()+"/metrics")
	for _, want := range []string{"weir_overload_shedding 1", "weir_overload_total 1", fmt.Sprintf("weir_memory_limit_bytes %g", float64(limit)),
		`reason="overload"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	// One that was begun before is finished.
	if _, err := holding[0].Write([]byte{0}); err != nil {
		t.Error(err)
	}
	if resp, _ := holding[0].answer("POST"); resp.StatusCode != 200 {
		t.Errorf("one that was under way got %d", resp.StatusCode)
	}
	for _, c := range holding {
		c.Close()
	}
	waitFor(t, func() bool { resp, _ := ask.exchange(plain); return resp.StatusCode == 200 }, func() string { return "it sheds for ever" })
	waitFor(t, func() bool {
		resp, err := http.Get(e.url("/plain"))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == 200 && len(b) == 0
	}, func() string { return "a new connection is not served" })
}
