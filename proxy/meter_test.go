package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/meter"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// counted is a Meter that remembers.
type counted struct {
	mu  sync.Mutex
	all map[string]int
}

func (c *counted) Count(x *exchange.Exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]int{}
	}
	operation := x.Operation
	if operation == "" {
		operation = "-"
	}
	c.all[fmt.Sprintf("%s %s %s %d", x.Consumer.Subscription, x.Api, operation, x.Response.Status)]++
}

// take returns what was counted since it was last asked.
func (c *counted) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

func metered(m proxy.Meter) func(*proxy.Config) {
	return func(c *proxy.Config) { c.Meter = m }
}

// What an answer is counted as, whoever gave it.
func TestAnswersAreCounted(t *testing.T) {
	c := new(counted)
	api := keyedAPI("books", "", func(*weirv1.ApiSpec) {})
	e := startKeyed(t, metered(c), contractOf(booksDocument), api)
	for what, request := range map[string]struct {
		method, path, key string
		status            int
		want              map[string]int
	}{
		"an answer of the service":     {"GET", "/books?limit=3", "k1", 200, map[string]int{"demo-free default/books listBooks 200": 1}},
		"what the contract refuses":    {"GET", "/books?limit=101", "k1", 400, map[string]int{"demo-free default/books listBooks 400": 1}},
		"what the contract has not":    {"GET", "/songs", "k1", 400, map[string]int{"demo-free default/books - 400": 1}},
		"a method that it has not":     {"DELETE", "/books", "k1", 400, map[string]int{"demo-free default/books - 400": 1}},
		"nobody's request":             {"GET", "/books", "", 401, nil},
		"nobody's, with another's key": {"GET", "/books", "k2", 401, nil},
	} {
		t.Run(what, func(t *testing.T) {
			req := newRequest(t, request.method, e.url(request.path), nil)
			if request.key != "" {
				req.Header.Set("x-api-key", request.key)
			}
			resp, body := do(t, http.DefaultClient, req)
			if resp.StatusCode != request.status {
				t.Errorf("got %s %s", resp.Status, body)
			}
			if got := c.take(); !maps.Equal(got, request.want) {
				t.Errorf("counted %v, want %v", got, request.want)
			}
		})
	}
	t.Run("a service that is not there", func(t *testing.T) {
		e.apply(service("s", "127.0.0.1:1"))
		get(t, e.url("/books"), "x-api-key", "k1")
		if got := c.take(); got["demo-free default/books listBooks 503"] != 1 {
			t.Errorf("counted %v", got)
		}
	})
	t.Run("a version without a contract", func(t *testing.T) {
		e.apply(keyedAPI("books", ""))
		get(t, e.url("/books"), "x-api-key", "k1")
		if got := c.take(); got["demo-free default/books - 503"] != 1 {
			t.Errorf("counted %v", got)
		}
	})
}

// Who has an answer was counted: by each protocol the count is there before the answer
// is, and once.
func TestAnswersAreCountedBeforeTheyAreSent(t *testing.T) {
	c := new(counted)
	e := startKeyed(t, metered(c), gateway(secureListener("https", "", nil, "shop")), certificate(t, "shop", "shop.example"))
	h1 := e.h2Client(true)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	h1.Transport.(*http.Transport).Protocols = protocols
	for name, client := range map[string]*http.Client{"HTTP/1.1": h1, "HTTP/2": e.h2Client(true), "HTTP/3": e.h3Client()} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				req := newRequest(t, "GET", "https://shop.example/books", nil)
				req.Header.Set("x-api-key", "k1")
				resp, err := client.Do(req) // the head is here, the body may not be
				if err != nil {
					t.Fatal(err)
				}
				if got := c.take(); len(got) != 1 || got["demo-free default/books - 200"] != 1 {
					t.Fatalf("there is an answer, and counted is %v", got)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.Proto[:6] != name[:6] {
					t.Fatalf("it was asked by %s", resp.Proto)
				}
			}
		})
	}
}

// An answer that is cut off counts: its status was sent.
func TestAnAnswerThatIsCutOffCounts(t *testing.T) {
	c := new(counted)
	e := startKeyed(t, metered(c))
	e.apply(service("s", upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "some of it")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})))
	req := newRequest(t, "GET", e.url("/books"), nil)
	req.Header.Set("x-api-key", "k1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer is whole: the test is about one that is not")
	}
	resp.Body.Close()
	if got := c.take(); got["demo-free default/books - 200"] != 1 {
		t.Errorf("counted %v", got)
	}
}

// A request that is counted allocates no more than one that is not.
func TestMeteringDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	j, err := meter.Open(meter.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler), Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	e := startKeyed(t, metered(j), contractOf(booksDocument), keyedAPI("books", "", func(s *weirv1.ApiSpec) {
		s.Validation = &weirv1.ApiValidation{Request: weirv1.ApiValidation_OFF} // checks do
	}))
	e.apply(service("s", plainOrigin(t)))
	c := dial(t, e.addr)
	raw, buf := []byte("GET /books?limit=3 HTTP/1.1\r\nHost: shop.example\r\nX-Api-Key: k1\r\n\r\n"), make([]byte, 8<<10)
	if n := testing.AllocsPerRun(300, func() { roundTrip(t, c.TCPConn, raw, buf) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
