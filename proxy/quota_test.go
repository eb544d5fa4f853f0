package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	quotapolicy "github.com/weirmesh/weir/policy/quota"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/quota"
	"github.com/weirmesh/weir/quota/ledger"
)

// counters are servers that lease tokens: the ledger, with nobody to agree with.
type counters struct {
	mu      sync.Mutex
	records map[string]*weirv1.LeaseRecord
	limits  map[string]ledger.Limit
	down    atomic.Bool
}

func (c *counters) lease(_ context.Context, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
	if c.down.Load() {
		return nil, errors.New("no server answers")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := &weirv1.LeaseTokensResponse{}
	for _, a := range m.GetAsks() {
		next, g := ledger.Grant(c.records[a.GetLimit()], c.limits[a.GetLimit()], time.Now().UnixNano(),
			ledger.Ask{Node: "edge/a", Epoch: m.GetEpoch(), Sequence: m.GetSequence(), LeaseAsk: a})
		c.records[a.GetLimit()] = next
		answer.Grants = append(answer.Grants, g)
	}
	return answer, nil
}

// identifier makes policies that say who calls, beside those of limits and markers.
type identifier struct {
	markers
	limits *quotapolicy.Host
	who    *exchange.Consumer
}

func (i *identifier) Make(ctx context.Context, spec policy.Spec, s policy.Services) (policy.Policy, error) {
	switch {
	case spec.Native == policy.Quota:
		return i.limits.Make(ctx, spec, s)
	case spec.Native != "": // who calls is said by the next one
		made, err := i.markers.Make(ctx, spec, s)
		return &quiet{made.(*marker)}, err
	case spec.Plugin == "who":
		made, err := i.markers.Make(ctx, spec, s)
		return &says{made.(*marker), i.who}, err
	}
	return i.markers.Make(ctx, spec, s)
}

type quiet struct{ *marker }

func (q *quiet) NewFilter() policy.Filter { return q }

func (*quiet) OnRequest(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}
func (*quiet) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

type says struct {
	*marker
	who *exchange.Consumer
}

func (s *says) NewFilter() policy.Filter { return s }

func (s *says) OnRequest(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	if x.Request.Fields.Get("X-Key") != nil {
		x.Consumer = s.who
	}
	return s.marker.OnRequest(x, end)
}

// limiter is a client that leases from counters.
func limiter(t testing.TB, limits ...exchange.Limit) (*quota.Client, *counters) {
	c := &counters{records: map[string]*weirv1.LeaseRecord{}, limits: map[string]ledger.Limit{}}
	for _, l := range limits {
		c.limits[l.Name] = ledger.Limit{Requests: l.Requests, Window: l.Window}
	}
	client := quota.New(slog.New(slog.DiscardHandler))
	client.Through(c.lease)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return client, c
}

func limitedAPI() *weirv1.Api {
	return &weirv1.Api{Metadata: &weirv1.Metadata{Name: "books"}, Spec: &weirv1.ApiSpec{Version: "v1", State: weirv1.ApiSpec_PUBLISHED,
		TargetRefs:     []*weirv1.TargetRef{{Kind: "Route", Name: "r"}},
		Authentication: &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{}}}}
}

// startLimited starts an edge with an Api that asks who calls, whose callers have these
// limits.
func startLimited(t testing.TB, limits ...exchange.Limit) (*edge, *counters) {
	client, c := limiter(t, limits...)
	maker := &identifier{limits: quotapolicy.NewHost(client), who: &exchange.Consumer{Tenant: "default", Subscription: "demo-free", Limits: limits}}
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["RateLimit"] = []string{`"service";r=7;t=7`}
		w.Header()["RateLimit-Policy"] = []string{`"service";q=7;w=7`}
		io.WriteString(w, r.Header.Get("X-Seen"))
	})
	e := startEdgeWith(t, with(maker), append(append(plugins("who", "mark"), service("s", addr), route("r", "/", "s")), limitedAPI(),
		attach("a", "who", "Route", "r", weirv1.PolicySpec_AUTHN), attach("b", "mark", "Route", "r", weirv1.PolicySpec_LIMIT))...)
	return e, c
}

// askKeyed makes a request with a key.
func askKeyed(t *testing.T, e *edge) (*http.Response, string) {
	t.Helper()
	req := newRequest(t, "GET", e.url("/books"), nil)
	req.Header.Set("X-Key", "k")
	return do(t, http.DefaultClient, req)
}

// Who calls is held to its limits, and told where it stands.
func TestLimitsOfConsumers(t *testing.T) {
	day, month := 24*time.Hour, 30*24*time.Hour
	e, _ := startLimited(t, exchange.Limit{Name: "day", Requests: 3, Window: day, Exact: true}, exchange.Limit{Name: "month", Requests: 100, Window: month, Exact: true})
	remains := regexp.MustCompile(`^"day";r=(\d+);t=(\d+), "month";r=(\d+);t=(\d+)$`)
	for i := range 5 {
		resp, body := askKeyed(t, e)
		h := resp.Header
		if got := h.Values("RateLimit-Policy"); len(got) != 1 || got[0] != `"day";q=3;w=86400, "month";q=100;w=2592000` {
			t.Errorf("call %d: the policy is %q", i, got)
		}
		m := remains.FindStringSubmatch(h.Get("RateLimit"))
		if m == nil || len(h.Values("RateLimit")) != 1 {
			t.Fatalf("call %d: what remains is %q", i, h.Values("RateLimit"))
		}
		if want := strconv.Itoa(max(2-i, 0)); m[1] != want {
			t.Errorf("call %d: %s remain, want %s", i, m[1], want)
		}
		if i < 3 {
			if resp.StatusCode != 200 || h.Get("Retry-After") != "" {
				t.Errorf("call %d: %s %s", i, resp.Status, body)
			}
			continue
		}
		var problem struct {
			Type, Code string
			Violated   []string `json:"violated-policies"`
		}
		if err := json.Unmarshal([]byte(body), &problem); err != nil || resp.StatusCode != 429 || problem.Code != "quota_exceeded" ||
			problem.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" || fmt.Sprint(problem.Violated) != "[day]" {
			t.Errorf("call %d: %s %s", i, resp.Status, body)
		}
		if after := h.Get("Retry-After"); after != m[2] {
			t.Errorf("call %d: try again after %s, but the window ends in %s", i, after, m[2])
		}
		if i == 4 && m[3] != "97" { // the two that were refused took nothing of the month's
			t.Errorf("of the month %s remain", m[3])
		}
	}
}

// Whom nobody knows is not limited, nor told anything; nor is the service's word
// changed then.
func TestNoConsumerNoLimits(t *testing.T) {
	e, _ := startLimited(t, exchange.Limit{Name: "day", Requests: 1, Window: 24 * time.Hour, Exact: true})
	for range 3 {
		if resp, body := get(t, e.url("/books")); resp.StatusCode != 200 || resp.Header.Get("RateLimit") != `"service";r=7;t=7` {
			t.Errorf("got %s %s %v", resp.Status, body, resp.Header)
		}
	}
}

// The limits stand behind who calls, and before policies that limit.
func TestLimitsStandBeforePoliciesThatLimit(t *testing.T) {
	e, _ := startLimited(t, exchange.Limit{Name: "day", Requests: 1, Window: 24 * time.Hour, Exact: true})
	if resp, body := askKeyed(t, e); resp.StatusCode != 200 || body != "a b " && body != "a b" {
		t.Errorf("got %s, the service saw %q", resp.Status, body)
	}
	if resp, _ := askKeyed(t, e); resp.StatusCode != 429 || resp.Header.Get("X-Back") != "a " && resp.Header.Get("X-Back") != "a" {
		t.Errorf("got %s, and %q saw it", resp.Status, resp.Header.Get("X-Back"))
	}
}

// With no server to ask, what is exact is refused, and what is not goes on.
func TestNobodyLeases(t *testing.T) {
	for _, exact := range []bool{true, false} {
		t.Run(fmt.Sprint("exact ", exact), func(t *testing.T) {
			e, c := startLimited(t, exchange.Limit{Name: "day", Requests: 1000, Window: 24 * time.Hour, Exact: exact})
			c.down.Store(true)
			var resp *http.Response
			var body string
			for range 20 {
				resp, body = askKeyed(t, e)
			}
			if !exact {
				if resp.StatusCode != 200 {
					t.Errorf("got %s %s", resp.Status, body)
				}
				return
			}
			var problem struct{ Type string }
			if err := json.Unmarshal([]byte(body), &problem); err != nil || resp.StatusCode != 503 || problem.Type != "urn:weir:problem:limit_unavailable" || resp.Header.Get("Retry-After") != "1" {
				t.Errorf("got %s %v %s", resp.Status, resp.Header, body)
			}
			c.down.Store(false)
			waitFor(t, func() bool { resp, body = askKeyed(t, e); return resp.StatusCode == 200 }, func() string { return resp.Status + " " + body })
		})
	}
}

// known makes everybody one consumer, and holds that to its limits.
type known struct {
	policy.NoBodies
	spec   policy.Spec
	limits *quotapolicy.Host
	who    *exchange.Consumer
}

func (k known) Make(ctx context.Context, spec policy.Spec, s policy.Services) (policy.Policy, error) {
	if spec.Native == policy.Quota {
		return k.limits.Make(ctx, spec, s)
	}
	k.spec = spec
	return k, nil
}

func (k known) Spec() policy.Spec        { return k.spec }
func (k known) Phases() policy.Phases    { return policy.RequestHead }
func (k known) NewFilter() policy.Filter { return k }
func (k known) Release()                 {}

func (k known) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if k.who != nil {
		x.Consumer = k.who
	}
	return policy.Continue, nil
}

func (k known) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

func startKnown(t testing.TB) *edge {
	limits := []exchange.Limit{{Name: "minute", Requests: 1 << 50, Window: time.Minute, Exact: true}, {Name: "day", Requests: 1 << 50, Window: 24 * time.Hour, Exact: true}}
	client, _ := limiter(t, limits...)
	who := &exchange.Consumer{Tenant: "default", Subscription: "demo-free", Limits: limits}
	return startEdgeWith(t, with(known{limits: quotapolicy.NewHost(client), who: who}), append(plugins("who"), service("s", plainOrigin(t)), route("r", "/", "s"),
		limitedAPI(), attach("a", "who", "Route", "r", weirv1.PolicySpec_AUTHN))...)
}

// A request that is within its limits allocates no more than one that has none. What
// is leased meanwhile does, a few times a second.
func TestLimitsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector pools forget on purpose")
	}
	e := startKnown(t)
	c := dial(t, e.addr)
	raw, buf := []byte("GET /books HTTP/1.1\r\nHost: shop.example\r\n\r\n"), make([]byte, 8<<10)
	if n := testing.AllocsPerRun(5000, func() { roundTrip(t, c.TCPConn, raw, buf) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkLimits is BenchmarkProxy with two exact limits.
func BenchmarkLimits(b *testing.B) {
	e := startKnown(b)
	request := []byte("GET /books HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	benchmarkRequest(b, e.addr, request)
}
