package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/quota/ledger"
)

// servers are the ledger behind a network.
type servers struct {
	mu      sync.Mutex
	rand    *rand.Rand
	clock   *weirv1.LeaseClock
	records map[string]*weirv1.LeaseRecord
	limits  map[string]ledger.Limit
	began   time.Time
	asks    int

	// trip is how long an answer takes, at most; lose and double say how many of a
	// hundred calls are lost, one way or the other, or come once more, later.
	trip         time.Duration
	lose, double int
	down         bool
	late         []func()
}

func newServers(seed uint64, limits ...exchange.Limit) *servers {
	s := &servers{rand: rand.New(rand.NewPCG(seed, 1)), records: map[string]*weirv1.LeaseRecord{}, limits: map[string]ledger.Limit{},
		began: time.Now(), trip: 10 * time.Millisecond}
	for _, l := range limits {
		s.limits[l.Name] = ledger.Limit{Requests: l.Requests, Window: l.Window}
	}
	return s
}

var errDown = errors.New("no server answers")

// as is how a proxy of a name asks.
func (s *servers) as(node string) Asker {
	return func(ctx context.Context, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
		m = proto.CloneOf(m)
		there, back := s.roll()
		if err := sleep(ctx, there.after); err != nil {
			return nil, err
		}
		if s.isDown() {
			return nil, errDown
		}
		if there.lost {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		answer := s.decide(node, m)
		if there.again {
			s.mu.Lock()
			s.late = append(s.late, func() { s.decide(node, m) })
			s.mu.Unlock()
		}
		if err := sleep(ctx, back.after); err != nil {
			return nil, err
		}
		if back.lost {
			return nil, errDown
		}
		return answer, nil
	}
}

type fate struct {
	after       time.Duration
	lost, again bool
}

func (s *servers) roll() (there, back fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := func() fate {
		return fate{time.Duration(s.rand.Int64N(int64(s.trip)/2) + 1), s.rand.IntN(100) < s.lose, s.rand.IntN(100) < s.double}
	}
	return one(), one()
}

func (s *servers) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *servers) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *servers) decide(node string, m *weirv1.LeaseTokensRequest) *weirv1.LeaseTokensResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.late); n > 0 && s.rand.IntN(4) == 0 { // something old comes first
		late := s.late[s.rand.IntN(n)]
		s.mu.Unlock()
		late()
		s.mu.Lock()
	}
	s.asks += len(m.GetAsks())
	s.clock = ledger.Tick(s.clock, "a", time.Now(), time.Since(s.began))
	answer := &weirv1.LeaseTokensResponse{}
	for _, a := range m.GetAsks() {
		limit, known := s.limits[a.GetLimit()]
		if !known {
			answer.Grants = append(answer.Grants, &weirv1.LeaseGrant{Unknown: true})
			continue
		}
		k := a.GetSubscription() + "/" + a.GetLimit()
		next, grant := ledger.Grant(s.records[k], limit, ledger.Now(s.clock), ledger.Ask{Node: node, Epoch: m.GetEpoch(), Sequence: m.GetSequence(), LeaseAsk: a})
		s.records[k] = next
		answer.Grants = append(answer.Grants, grant)
	}
	return answer
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// consumer is a subscription's.
func consumer(name string, limits ...exchange.Limit) *exchange.Consumer {
	return &exchange.Consumer{Tenant: "default", Subscription: name, Limits: limits}
}

func exact(requests uint64, window time.Duration) exchange.Limit {
	return exchange.Limit{Name: fmt.Sprint("w", window), Requests: requests, Window: window, Exact: true}
}

func fast(requests uint64, window time.Duration) exchange.Limit {
	l := exact(requests, window)
	l.Exact = false
	return l
}

// start is a proxy that runs until the test's end, or until it is stopped.
func start(t *testing.T, ask Asker) (c *Client, stop func()) {
	c = New(slog.New(slog.DiscardHandler))
	c.Through(ask)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return c, stop
}

// tally counts what was admitted, by windows.
type tally struct {
	mu       sync.Mutex
	window   time.Duration
	admitted map[int64]int
	outcomes map[Outcome]int
}

func newTally(window time.Duration) *tally {
	return &tally{window: window, admitted: map[int64]int{}, outcomes: map[Outcome]int{}}
}

func (y *tally) count(d Decision) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.outcomes[d.Outcome]++
	if d.Outcome == Admitted {
		y.admitted[time.Now().UnixNano()/int64(y.window)]++
	}
}

// demand sends requests, so many a second, each of its own accord, until ctx ends.
func demand(ctx context.Context, c *Client, who *exchange.Consumer, rate float64, y *tally) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for sleep(ctx, time.Duration(rand.ExpFloat64()*float64(time.Second)/rate)) == nil {
		asking.Go(func() { y.count(c.Account(who).Acquire(time.Time{}, nil)) })
	}
}

// During a few windows, in which several proxies have more demand than the limit, and
// all kinds of traffic between them: never more is admitted than the limit, and while
// the servers answer nearly all of it.
func TestSeveralProxiesShareALimit(t *testing.T) {
	for name, c := range map[string]struct {
		requests     uint64
		window       time.Duration
		rates        []float64 // a second, of each proxy
		lose, double int
		outages      bool
		least        float64
	}{
		"two, four times too much":    {requests: 1000, window: time.Minute, rates: []float64{33, 33}, least: 0.98},
		"one has it all":              {requests: 1000, window: time.Minute, rates: []float64{60, 0.1, 0.1, 0.1}, least: 0.98},
		"many with little":            {requests: 300, window: 30 * time.Second, rates: []float64{1, 1, 2, 2, 4, 4, 8, 8}, least: 0.98},
		"few for each":                {requests: 10, window: 20 * time.Second, rates: []float64{2, 2, 2, 2}, least: 0.98},
		"much and fast":               {requests: 20_000, window: 10 * time.Second, rates: []float64{2000, 2000, 100}, least: 0.98},
		"one at a time":               {requests: 1, window: 5 * time.Second, rates: []float64{3, 3}, least: 0.98},
		"calls are lost and doubled":  {requests: 500, window: time.Minute, rates: []float64{20, 20, 20}, lose: 10, double: 30},
		"the servers come and go":     {requests: 500, window: time.Minute, rates: []float64{20, 20, 20}, lose: 5, double: 10, outages: true},
		"the servers come, fast ones": {requests: 50, window: time.Second, rates: []float64{200, 200}, lose: 2, double: 10, outages: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := exact(c.requests, c.window)
				s := newServers(7, limit)
				s.lose, s.double = c.lose, c.double
				y, who := newTally(c.window), consumer("books", limit)
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				var stops []func()
				for i, rate := range c.rates {
					p, stop := start(t, s.as(fmt.Sprint("edge/", i)))
					stops = append(stops, stop)
					all.Go(func() { demand(ctx, p, who, rate, y) })
				}
				if c.outages {
					all.Go(func() {
						for down := false; sleep(ctx, rand.N(c.window/2)) == nil; down = !down {
							s.setDown(down)
						}
					})
				}
				windows := int64(3)
				first := time.Now().UnixNano()/int64(c.window) + 1 // the one that has begun is not whole
				time.Sleep(time.Until(time.Unix(0, (first+windows)*int64(c.window))))
				cancel()
				all.Wait()
				for _, stop := range stops {
					stop()
				}
				for w, n := range y.admitted {
					if n > int(c.requests) {
						t.Errorf("window %d: %d were admitted of %d", w-first, n, c.requests)
					}
					if whole := w >= first && w < first+windows; whole && float64(n) < c.least*float64(c.requests) {
						t.Errorf("window %d: only %d were admitted of %d", w-first, n, c.requests)
					}
				}
				t.Logf("%d asks of the servers; %v, %v", s.asks, y.outcomes, y.admitted)
			})
		})
	}
}

func ledgerLimit(l exchange.Limit) ledger.Limit {
	return ledger.Limit{Requests: l.Requests, Window: l.Window}
}
