package canary

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// version is a policy that stamps what it sees, or does as the test says.
type version struct {
	name     string
	phases   policy.Phases
	released int
	begin    error
	request  func(x *exchange.Exchange) (policy.Verdict, error)
}

func (v *version) Spec() policy.Spec {
	return policy.Spec{Tenant: "t", Name: "p", Digest: v.name, FailureMode: weirv1.PolicySpec_CLOSED}
}
func (v *version) Phases() policy.Phases    { return v.phases }
func (v *version) NewFilter() policy.Filter { return &versionFilter{version: v} }
func (v *version) Release()                 { v.released++ }

type versionFilter struct {
	*version
	open bool
}

func (f *versionFilter) Begin(*exchange.Exchange) error {
	if f.open {
		panic("begun twice")
	}
	f.open = f.begin == nil
	return f.begin
}

func (f *versionFilter) OnRequest(x *exchange.Exchange, _ bool) (policy.Verdict, error) {
	if f.phases&policy.RequestHead == 0 {
		panic("not wanted")
	}
	if f.request != nil {
		return f.request(x)
	}
	x.Request.Fields.Set([]byte("x-version"), []byte(f.name))
	return policy.Continue, nil
}

func (f *versionFilter) OnRequestBody(_ *exchange.Exchange, chunk *[]byte, _ bool) (policy.Verdict, error) {
	if f.phases&policy.RequestBody == 0 {
		panic("not wanted")
	}
	return policy.Continue, nil
}

func (f *versionFilter) OnResponse(*exchange.Exchange, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

func (f *versionFilter) OnResponseBody(*exchange.Exchange, *[]byte, bool) (policy.Verdict, error) {
	return policy.Continue, nil
}

func (f *versionFilter) Close(*exchange.Exchange) {
	if !f.open {
		panic("closed and not open")
	}
	f.open = false
}

// serve takes one exchange through a chain, and returns the version that it met.
func serve(chain *policy.Chain, status int) (string, error) {
	x := new(exchange.Exchange)
	run := chain.Begin(x)
	defer run.Close()
	if _, err := run.Request(); err != nil {
		x.Response.Status = 500
		_ = run.Response()
		return "", err
	}
	x.Response.Status = status
	return string(x.Request.Fields.Get("x-version")), run.Response()
}

// steps draws so that every nth exchange is the canary's.
func steps(n int) func() uint64 {
	i := 0
	return func() uint64 {
		i++
		if i%n == 0 {
			return 0
		}
		return 1<<64 - 1
	}
}

func pair(t *testing.T, c Config) (stable, canary *version, trial *Trial, chain *policy.Chain) {
	t.Helper()
	stable, canary = &version{name: "old", phases: policy.RequestHead}, &version{name: "new", phases: policy.RequestHead}
	trial = NewTrial(c)
	p := New(stable, canary, trial)
	t.Cleanup(func() {
		if p.Release(); stable.released != 1 || canary.released != 1 {
			t.Errorf("released %d and %d times", stable.released, canary.released)
		}
	})
	return stable, canary, trial, policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
}

func TestShare(t *testing.T) {
	for _, percent := range []float64{0.5, 5, 50, 100} {
		_, _, trial, chain := pair(t, Config{Percent: percent})
		const all = 20000
		for range all {
			if _, err := serve(chain, 200); err != nil {
				t.Fatal(err)
			}
		}
		canary, stable := trial.Counts()
		if sum := canary.GetExchanges() + stable.GetExchanges(); sum != all {
			t.Errorf("%d exchanges were counted", sum)
		}
		want := all * percent / 100
		if got := float64(canary.GetExchanges()); got < want-6*141 || got > want+6*141 || percent == 100 && got != all {
			t.Errorf("%v %%: got %v, want some %v", percent, got, want)
		}
	}
}

// The canary traps: its own exchanges fail until it is given up, and no others ever.
func TestFailuresEndTheTrial(t *testing.T) {
	var told []string
	_, canary, trial, chain := pair(t, Config{Percent: 50, Draw: steps(2), OnAbort: func(reason string) { told = append(told, reason) }})
	canary.request = func(*exchange.Exchange) (policy.Verdict, error) {
		return 0, fmt.Errorf("trapped: %w", policy.ErrOutOfFuel)
	}
	failed := 0
	for range 100 {
		if got, err := serve(chain, 200); err != nil {
			failed++
		} else if got != "old" {
			t.Fatalf("served by %q", got)
		}
	}
	if failed != 3 || len(told) != 1 || told[0] != trial.Aborted() || !strings.Contains(told[0], "3 failures, all out of fuel in 3 exchanges; the version in force has 0 in 3") {
		t.Errorf("%d failed; %q", failed, told)
	}
}

func TestWhatIsAFailure(t *testing.T) {
	for _, c := range []struct {
		what             string
		begin, request   error
		status           int
		failures, errors uint64
	}{
		{"it will not begin", errors.New("circuit is open"), nil, 200, 1, 0},
		{"it traps", nil, errors.New("trapped"), 200, 1, 0},
		{"a service that it asked does not answer", nil, policy.ErrWaited, 200, 0, 1},
		{"the service answers with 503", nil, nil, 503, 0, 1},
		{"the service answers with 404", nil, nil, 404, 0, 0},
	} {
		_, canary, trial, chain := pair(t, Config{Percent: 100})
		canary.begin = c.begin
		canary.request = func(*exchange.Exchange) (policy.Verdict, error) { return policy.Continue, c.request }
		_, _ = serve(chain, c.status)
		got, _ := trial.Counts()
		if got.GetExchanges() != 1 || got.GetFailures() != c.failures || got.GetServerErrors() != c.errors {
			t.Errorf("%s: got %v", c.what, got)
		}
	}
}

// The two versions want different parts of an exchange, and each sees its own.
func TestPhases(t *testing.T) {
	stable, canary, _, _ := pair(t, Config{})
	stable.phases, canary.phases = policy.RequestHead|policy.RequestBody, policy.RequestHead
	canary.request = func(*exchange.Exchange) (policy.Verdict, error) { return policy.Hold, nil }
	for _, percent := range []float64{0, 100} {
		p := New(stable, canary, NewTrial(Config{Percent: percent}))
		chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
		x := new(exchange.Exchange)
		body := &chunks{left: 3}
		x.Request.Body = body
		run := chain.Begin(x)
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		if percent == 100 && body.left < 2 {
			t.Errorf("a head that waits for no body has read %d of 3 chunks", 3-body.left)
		}
		run.Close()
	}
}

type chunks struct{ left int }

func (c *chunks) Length() int64 { return -1 }
func (c *chunks) Next() ([]byte, error) {
	c.left--
	return []byte("x"), nil
}

func TestJudge(t *testing.T) {
	type n = weirv1.PluginCounts
	for _, c := range []struct {
		what           string
		canary, stable *n
		want           string
	}{
		{"nothing yet", &n{}, &n{}, ""},
		{"two failures are few", &n{Exchanges: 2, Failures: 2}, &n{Exchanges: 1000}, ""},
		{"three are enough", &n{Exchanges: 3, Failures: 3}, &n{}, "3 failures in 3"},
		{"the other fails as much", &n{Exchanges: 100, Failures: 10}, &n{Exchanges: 1000, Failures: 60}, ""},
		{"the other fails half as much", &n{Exchanges: 100, Failures: 10}, &n{Exchanges: 1000, Failures: 49}, "10 failures"},
		{"some out of fuel", &n{Exchanges: 100, Failures: 10, OutOfFuel: 4}, &n{Exchanges: 1000}, "10 failures, 4 out of fuel"},
		{"too few to compare", &n{Exchanges: 49, ServerErrors: 49}, &n{Exchanges: 1000}, ""},
		{"nothing to compare with", &n{Exchanges: 1000, ServerErrors: 1000}, &n{Exchanges: 10}, ""},
		{"plainly worse", &n{Exchanges: 50, ServerErrors: 10}, &n{Exchanges: 950, ServerErrors: 2}, "10 of 50 exchanges answered with 5xx; of the version in force 2 of 950"},
		{"the service itself is down", &n{Exchanges: 50, ServerErrors: 40}, &n{Exchanges: 950, ServerErrors: 760}, ""},
		{"somewhat worse, by chance", &n{Exchanges: 100, ServerErrors: 6}, &n{Exchanges: 1900, ServerErrors: 57}, ""},
		{"a little worse, and many", &n{Exchanges: 1e6, ServerErrors: 5000}, &n{Exchanges: 1e6, ServerErrors: 1000}, ""},
		{"worse by one of a hundred, and many", &n{Exchanges: 1e5, ServerErrors: 1500}, &n{Exchanges: 1e6, ServerErrors: 4000}, "5xx"},
		{"better", &n{Exchanges: 1000, ServerErrors: 5}, &n{Exchanges: 1000, ServerErrors: 500}, ""},
	} {
		if got := Judge(c.canary, c.stable); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("pools forget at random under the race detector")
	}
	stable, canary, _, chain := pair(t, Config{Percent: 50})
	canary.request = func(*exchange.Exchange) (policy.Verdict, error) { return policy.Continue, nil }
	stable.request = canary.request
	x := new(exchange.Exchange)
	once := func() {
		run := chain.Begin(x)
		_, _ = run.Request()
		_ = run.Response()
		run.Close()
	}
	once()
	if n := testing.AllocsPerRun(1000, once); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// connecting is a version that knows connections which carry no HTTP.
type connecting struct {
	version
	filters int
}

func (c *connecting) Connects() bool { return true }

func (c *connecting) NewConnectionFilter() policy.ConnectionFilter {
	c.filters++
	return nil
}

// A trial does not take a plugin off the connections that it is used on: they keep the
// stable version.
func TestConnections(t *testing.T) {
	stable, canary := new(connecting), new(connecting)
	p := New(stable, canary, NewTrial(Config{Percent: 100}))
	p.NewConnectionFilter()
	if !p.Connects() || stable.filters != 1 || canary.filters != 0 {
		t.Errorf("connects %v, stable %d, canary %d", p.Connects(), stable.filters, canary.filters)
	}
	if New(new(version), canary, NewTrial(Config{Percent: 100})).Connects() {
		t.Error("the stable version knows no connections")
	}
}
