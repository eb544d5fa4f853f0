package foreign

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/test/edge"
)

// desk is the service that knows people by their keys. Whoever has the key "slow" is
// looked for until nobody wants to know any more.
type desk struct{ asked, givenUp chan struct{} }

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch key := r.Header.Get("X-Key"); {
	case r.Method != "GET" || r.URL.Path != "/me":
		w.WriteHeader(400)
	case key == "slow":
		d.asked <- struct{}{}
		<-r.Context().Done()
		d.givenUp <- struct{}{}
	case strings.HasPrefix(key, "key-of-"):
		io.WriteString(w, strings.TrimPrefix(key, "key-of-"))
	default:
		w.WriteHeader(404)
	}
}

// shop is the service behind the edge: it tells what it got.
func shop(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Got", r.Header.Get("X-User")+" "+r.Header.Get("X-Visits"))
	fmt.Fprintf(w, "got <%s>", body)
	w.(http.Flusher).Flush()
	io.WriteString(w, ", for 42")
}

// house is an edge with the usher at its door.
type house struct {
	*edge.Edge
	desk *desk
	host *wasm.Host
}

func open(t *testing.T, file string) *house {
	t.Helper()
	module := read(t, file)
	h := &house{desk: &desk{make(chan struct{}, 8), make(chan struct{}, 8)}}
	serve := func(handler http.Handler) string {
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	var err error
	h.host, err = wasm.NewHost(wasm.Config{
		Modules: func(context.Context, string) ([]byte, error) { return module, nil },
		VMs:     4, LogLines: 10_000,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.host.Close(); err != nil {
			t.Error(err)
		}
	})
	config, _ := structpb.NewStruct(map[string]any{"service": "users"})
	h.Edge = edge.StartWith(t, func(c *proxy.Config) {
		c.Policies, c.ClientHalfClosed = h.host, 10*time.Millisecond
	},
		edge.Service("shop", serve(http.HandlerFunc(shop))), edge.Service("desk", serve(h.desk)), edge.Route("r", "/", "shop"),
		&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "usher"}, Spec: &weirv1.PluginSpec{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(module))}},
		&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "usher"}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}, Plugin: "usher", Config: config,
			Services: []*weirv1.ServiceGrant{{Name: "desk", As: "users"}}}})
	return h
}

// ask sends a request and returns the answer with its body.
func (h *house) ask(t *testing.T, key, body string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), edge.Patience)
	defer cancel()
	// A reader of a type that net/http does not know: the body goes out in chunks.
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+h.Addr+"/letters", io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(got)
}

// healthy: no callback has failed.
func (h *house) healthy(t *testing.T) {
	t.Helper()
	for _, s := range h.host.Status() {
		if s.Traps != 0 || s.LastError != "" {
			t.Errorf("%d callbacks trapped: %s", s.Traps, s.LastError)
		}
	}
}

// TestAtAnEdge: the usher decides by what a service says, changes heads and bodies, and
// counts visits once each, however many sandboxes there are.
func TestAtAnEdge(t *testing.T) {
	inEach(t, func(t *testing.T, file string) {
		h := open(t, file)
		for _, c := range []struct {
			key    string
			status int
			got    string
			body   string
		}{
			{"", 401, "", "a key is wanted\n"},
			{"stolen", 403, "", "you are not known\n"},
			{"key-of-ann", 200, "ann 1", "got <a [left out]>, for ##"},
			{"key-of-bob", 200, "bob 1", "got <a [left out]>, for ##"},
		} {
			resp, body := h.ask(t, c.key, "a secret")
			if resp.StatusCode != c.status || body != c.body || resp.Header.Get("X-Got") != c.got {
				t.Errorf("with key %q: %d, got %q, %q", c.key, resp.StatusCode, resp.Header.Get("X-Got"), body)
			}
		}
		const clients, visits = 16, 10
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for range visits {
					if resp, _ := h.ask(t, "key-of-ann", ""); resp.StatusCode != 200 {
						t.Errorf("a visit is answered with %d", resp.StatusCode)
					}
				}
			})
		}
		all.Wait()
		if resp, _ := h.ask(t, "key-of-ann", ""); resp.Header.Get("X-Got") != fmt.Sprint("ann ", clients*visits+2) {
			t.Errorf("got %q", resp.Header.Get("X-Got"))
		}
		h.healthy(t)
	})
}

// TestTicksAtAnEdge come by themselves, and every sandbox sees what they count.
func TestTicksAtAnEdge(t *testing.T) {
	inEach(t, func(t *testing.T, file string) {
		h := open(t, file)
		for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			resp, _ := h.ask(t, "key-of-ann", "")
			if n := resp.Header.Get("X-Ticks"); n != "" && n != "0" {
				break
			}
			if time.Since(begun) > edge.Patience {
				t.Fatal("there are no ticks")
			}
		}
		h.healthy(t)
	})
}

// TestAClientThatLeavesWhileThePolicyWaits takes the policy's call with it, and is
// nothing to the next.
func TestAClientThatLeavesWhileThePolicyWaits(t *testing.T) {
	inEach(t, func(t *testing.T, file string) {
		h := open(t, file)
		for range 3 {
			c, err := net.Dial("tcp", h.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop\r\nX-Key: slow\r\n\r\n")
			await(t, h.desk.asked, "the desk is not asked")
			c.Close()
			await(t, h.desk.givenUp, "the desk is not told that nobody wants to know")
		}
		if resp, _ := h.ask(t, "key-of-ann", ""); resp.StatusCode != 200 {
			t.Errorf("the next is answered with %d", resp.StatusCode)
		}
		h.healthy(t)
	})
}

// TestAClientThatStaysIsAnswered when the desk has taken longer than the usher waits.
func TestAClientThatStaysIsAnswered(t *testing.T) {
	inEach(t, func(t *testing.T, file string) {
		h := open(t, file)
		c, err := net.Dial("tcp", h.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(edge.Patience))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: shop\r\nX-Key: slow\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 503 {
			t.Errorf("%v, %v", resp, err)
		}
		await(t, h.desk.givenUp, "the desk is not told")
		h.healthy(t)
	})
}

func await(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(edge.Patience):
		t.Fatal(what)
	}
}
