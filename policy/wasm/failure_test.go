package wasm

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// TestTraps: whatever way a guest fails, its exchange is ended by the failure
// mode, the reason is told, and the next exchange is served.
func TestTraps(t *testing.T) {
	f := newFixture(t, Config{Fuel: 2_000_000})
	closed, open := f.make(spec("")), f.make(openSpec(""))
	for _, test := range []struct {
		do     string
		want   string
		fuel   bool
		logged string
	}{
		{do: "request: trap", want: "proxy_on_request_headers trapped: out of bounds memory access"},
		{do: "request: panic oh+no", want: "proxy_on_request_headers trapped: unreachable", logged: "panic: oh no"},
		{do: "request: exit", want: "it exited with code 7"},
		{do: "request: spin", want: "proxy_on_request_headers ran out of fuel", fuel: true},
		{do: "request: sleep", want: "proxy_on_request_headers ran out of fuel", fuel: true},
		{do: "request: spin-allocator", want: "proxy_on_request_headers ran out of fuel", fuel: true},
		{do: "request: calls", want: "proxy_on_request_headers ran out of fuel", fuel: true},
		{do: "request: log 0 x 1000000", want: "proxy_on_request_headers ran out of fuel", fuel: true},
		{do: "request: set x-half done; request: set :path /half; request: trap", want: "out of bounds"},
		{do: "request: reply 403 no; request: trap", want: "out of bounds"},
		{do: "request body: trap", want: "proxy_on_request_body trapped"},
		{do: "response: set x-half done; response: set :status 500; response: trap", want: "proxy_on_response_headers trapped"},
		{do: "response: reply 500 no; response: trap", want: "proxy_on_response_headers trapped"},
		{do: "response body: append half; response body: trap", want: "proxy_on_response_body trapped"},
	} {
		t.Run(test.do, func(t *testing.T) {
			request, response := do(test.do), message{body: []string{"there"}}
			request.body = []string{"here"}
			o := serve([]policy.Policy{closed}, request, response)
			var failure *policy.Error
			var trap *Trap
			if !errors.As(o.err, &failure) || !errors.As(o.err, &trap) || failure.Status != 500 {
				t.Fatalf("CLOSED: %v\n%s", o.err, o.response)
			}
			if !strings.Contains(o.err.Error(), test.want) || trap.OutOfFuel != test.fuel {
				t.Errorf("CLOSED: %v", o.err)
			}
			if !strings.Contains(f.journal.String(), test.logged) {
				t.Errorf("not logged: %s", test.logged)
			}
			o = serve([]policy.Policy{open}, request, response)
			if o.err != nil || o.asked != "here" || o.got != "there" || halfDone(o) || !strings.HasPrefix(o.response, "200") {
				t.Errorf("OPEN: %v, asked %q, got %q\n%s\n%s", o.err, o.asked, o.got, o.request, o.response)
			}
			for _, p := range []*use{closed, open} {
				p.circuit.until.Store(0)
				if o = serve([]policy.Policy{p}, message{fields: "x-in: v"}, message{}); o.err != nil || value(o.request, "x-out") != "v" {
					t.Errorf("the next exchange: %v", o.err)
				}
			}
		})
	}
	s := closed.Status()
	if s.Traps == 0 || s.OutOfFuel == 0 || s.OutOfFuel >= s.Traps || s.LastError == "" {
		t.Errorf("status %+v", s)
	}
}

// halfDone reports whether what a callback did before it failed can be seen.
func halfDone(o outcome) bool {
	return value(o.request, "x-half")+value(o.response, "x-half") != "" || string(o.x.Request.Path) == "/half" || o.x.RouteChanged
}

func TestATrapAtTheEndDoesNotConcernTheExchange(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	o := serve([]policy.Policy{p}, do("log: trap"), message{})
	if o.err != nil || p.Status().Traps != 1 || p.Status().VMs != 0 {
		t.Errorf("%v, %+v", o.err, p.Status())
	}
}

// TestATrapCostsOneExchange: exchanges that are in the middle of their lives when
// another traps end well, because each has a VM of its own.
func TestATrapCostsOneExchange(t *testing.T) {
	f := newFixture(t, Config{VMs: 8})
	p := f.make(spec(""))
	chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	var runs []*policy.Run
	for range 7 {
		x := newExchange()
		run := chain.Begin(x)
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		x.Response.Status = 200
		runs = append(runs, run)
	}
	if o := serveChain(chain, do("request: trap"), message{}); o.err == nil {
		t.Fatal("no trap")
	}
	for _, run := range runs {
		if err := run.Response(); err != nil {
			t.Error(err)
		}
		run.Close()
	}
	if s := p.Status(); s.Traps != 1 || s.VMs != 7 || s.Idle != 7 {
		t.Errorf("status %+v", s)
	}
}

// TestBeyondThePoolExchangesShareVMs: and what they share, they lose together.
func TestBeyondThePoolExchangesShareVMs(t *testing.T) {
	f := newFixture(t, Config{VMs: 2})
	p := f.make(spec(""))
	chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	var runs []*policy.Run
	for i := range 6 {
		x := newExchange()
		if i == 5 {
			x.Request.Fields.Add([]byte("x-do"), []byte("response: trap"))
		}
		run := chain.Begin(x)
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		x.Response.Status = 200
		runs = append(runs, run)
	}
	if s := p.Status(); s.VMs != 2 {
		t.Errorf("%d VMs", s.VMs)
	}
	failed := 0
	for i := range runs {
		run := runs[len(runs)-1-i] // the one that traps comes first
		if err := run.Response(); err != nil {
			failed++
			if i > 0 && !errors.Is(err, errLost) {
				t.Errorf("%d: %v", i, err)
			}
		}
		run.Close()
	}
	if s := p.Status(); failed != 3 || s.Traps != 1 || s.Idle != 1 {
		t.Errorf("%d failed; %+v", failed, s)
	}
	if o := serveChain(chain, message{fields: "x-in: v"}, message{}); o.err != nil {
		t.Error(o.err)
	}
}

func TestACircuitOpensForAPolicyThatOnlyTraps(t *testing.T) {
	f := newFixture(t, Config{Open: time.Hour})
	p := f.make(spec(""))
	for range circuitTraps {
		if o := serve([]policy.Policy{p}, do("request: trap"), message{}); errors.Is(o.err, errCircuitOpen) {
			t.Fatal("open too early")
		}
	}
	o := serve([]policy.Policy{p}, message{}, message{})
	if !errors.Is(o.err, errCircuitOpen) {
		t.Errorf("got %v", o.err)
	}
	s := p.Status()
	if s.OpenUntil.IsZero() || s.Traps != circuitTraps || !strings.Contains(f.journal.String(), "its circuit is open") {
		t.Errorf("status %+v\n%s", s, f.journal)
	}

	// After the pause one exchange is let through at a time: what it shows decides.
	p.circuit.until.Store(1) // long ago
	if o := serve([]policy.Policy{p}, do("request: trap"), message{}); o.err == nil || errors.Is(o.err, errCircuitOpen) {
		t.Errorf("after the pause: %v", o.err)
	}
	if left := time.Until(p.Status().OpenUntil); left < time.Hour || !strings.Contains(f.journal.String(), "its circuit stays open") {
		t.Errorf("a policy that still fails is left alone for %s\n%s", left, f.journal)
	}
	p.circuit.until.Store(1)
	probe := p.NewFilter()
	x := new(exchange.Exchange)
	if err := probe.Begin(x); err != nil {
		t.Error(err)
	}
	if o := serve([]policy.Policy{p}, message{}, message{}); !errors.Is(o.err, errCircuitOpen) {
		t.Errorf("beside the one that is let through: %v", o.err)
	}
	probe.Close(x)
	if o := serve([]policy.Policy{p}, message{}, message{}); o.err != nil || !p.Status().OpenUntil.IsZero() {
		t.Errorf("after one that went well: %v", o.err)
	}
}

// TestACrowdTrapsOneByOne: whoever comes at once with what makes a policy trap does not
// make it trap at once; when the circuit opens those who still wait fail at once.
func TestACrowdTrapsOneByOne(t *testing.T) {
	f := newFixture(t, Config{Open: time.Hour, VMs: 16})
	p := f.make(spec(""))
	p.circuit.patience = time.Hour
	serve([]policy.Policy{p}, do("request: trap"), message{}) // it is in doubt
	const crowd = 30
	var all sync.WaitGroup
	var refused, lost atomic.Int64
	for range crowd {
		all.Go(func() {
			switch o := serve([]policy.Policy{p}, do("request: spin"), message{}); {
			case errors.Is(o.err, errCircuitOpen):
				refused.Add(1)
			case errors.Is(o.err, errLost): // it was in the VM of one who trapped
				lost.Add(1)
			case o.err == nil:
				t.Error("it is served")
			}
		})
	}
	all.Wait()
	// The first one to trap was counted before the crowd came; who spins counts as two.
	const spun = (circuitTraps - 1) / 2
	if s := p.Status(); s.Traps != 1+spun || refused.Load()+lost.Load() != crowd-spun {
		t.Errorf("%d callbacks trapped, and %d exchanges were not shown to it", s.Traps, refused.Load())
	}
	if n := p.pool.served(); n != 0 {
		t.Errorf("%d that were refused count as served", n)
	}
}

// TestADoubtEnds with the first exchange that is served: then they are at work at once
// again.
func TestADoubtEnds(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	serve([]policy.Policy{p}, do("request: trap"), message{})
	if !p.circuit.doubt.Load() {
		t.Error("there is no doubt after a trap")
	}
	if o := serve([]policy.Policy{p}, message{}, message{}); o.err != nil || p.circuit.doubt.Load() || len(p.circuit.turn) != 0 {
		t.Errorf("after an exchange that was served: %v, in doubt: %t, %d turns", o.err, p.circuit.doubt.Load(), len(p.circuit.turn))
	}
}

// TestAPolicyThatFailsIsTold, in words as long as its circuit is open, and in numbers.
func TestAPolicyThatFailsIsTold(t *testing.T) {
	f := newFixture(t, Config{Open: time.Hour})
	p := f.make(spec(""))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f.host)
	if told := f.host.Problem(); told != "" {
		t.Errorf("before: %s", told)
	}
	for range circuitTraps {
		serve([]policy.Policy{p}, do("request: trap"), message{})
	}
	name := p.spec.Tenant + "/" + p.spec.Name
	if told := f.host.Problem(); !strings.Contains(told, "policy "+name+" of plugin "+p.spec.Plugin+" does little but fail") || !strings.Contains(told, "trapped") {
		t.Errorf("told: %q", told)
	}
	read := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, family := range families {
			m := family.GetMetric()[0]
			values[family.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return values
	}
	if n := read(); n["weir_policy_traps_total"] != circuitTraps || n["weir_policy_exchanges_total"] != circuitTraps || n["weir_policy_circuit_open"] != 1 || n["weir_policy_fuel_total"] == 0 {
		t.Errorf("counted: %v", n)
	}
	p.circuit.until.Store(1) // long ago: the next exchange shows how it fares
	if told := f.host.Problem(); told == "" {
		t.Error("nothing is told before that is known")
	}
	serve([]policy.Policy{p}, message{}, message{})
	if told, n := f.host.Problem(), read(); told != "" || n["weir_policy_circuit_open"] != 0 || n["weir_policy_vms"] != 1 || n["weir_policy_memory_bytes"] == 0 {
		t.Errorf("once it serves again: %q, %v", told, n)
	}
}

// TestACircuitStaysClosedWhileOthersSucceed: every second request traps, and the
// one after it is served.
func TestACircuitStaysClosedWhileOthersSucceed(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	for range 2 * circuitTraps {
		serve([]policy.Policy{p}, do("request: trap"), message{})
		if o := serve([]policy.Policy{p}, message{}, message{}); o.err != nil {
			t.Fatal(o.err)
		}
	}
}

// TestExchangesAtOnce: many goroutines, some of whose exchanges trap; the others
// must not notice.
func TestExchangesAtOnce(t *testing.T) {
	f := newFixture(t, Config{VMs: 16})
	p := f.make(spec(""))
	chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 40 {
				if g == 0 && i%10 == 0 {
					serveChain(chain, do("response: trap"), message{})
					continue
				}
				in := fmt.Sprint(g, "-", i)
				o := serveChain(chain, message{fields: "x-in: " + in}, message{})
				if o.err != nil || value(o.request, "x-out") != in || value(o.response, "x-stamped") != "yes" {
					t.Errorf("%v\n%s", o.err, o.request)
				}
			}
		})
	}
	all.Wait()
	if s := p.Status(); s.Traps != 4 || s.Exchanges != 320 || s.VMs != s.Idle {
		t.Errorf("status %+v", s)
	}
}

func TestTicks(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(`"tick trap"`))
	if s := p.Status(); s.VMs != 0 {
		t.Errorf("the VM that ticks serves exchanges: %+v", s)
	}
	// The second tick traps, and a new VM goes on from the start.
	deadline := time.Now().Add(2 * time.Minute)
	for p.Status().Traps < 2 {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", p.Status())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got, _, ok := p.data.get(nil, []byte("ticks"), func(int) {}); !ok || (string(got) != "1" && string(got) != "2") {
		t.Errorf("shared %q", got)
	}
}

func TestGuestsLogUnderTheirPolicysName(t *testing.T) {
	f := newFixture(t, Config{LogLines: 10})
	p := f.make(spec(""))
	serve([]policy.Policy{p}, do("request: print out err"), message{})
	serve([]policy.Policy{p}, do("request: log 3 careful; request: log 0 secret"), message{})
	for _, want := range []string{
		"level=INFO msg=out policy=t/stamp plugin=guest request_id=id-1",
		"level=ERROR msg=err policy=t/stamp plugin=guest request_id=id-1",
		"level=WARN msg=careful policy=t/stamp plugin=guest request_id=id-1",
	} {
		if !strings.Contains(f.journal.String(), want) {
			t.Errorf("not logged: %s\n%s", want, f.journal)
		}
	}
	if strings.Contains(f.journal.String(), "secret") {
		t.Error("a line below the level is logged")
	}
	serve([]policy.Policy{p}, do("request: log 2 again 100"), message{})
	if n := strings.Count(f.journal.String(), "msg=again"); n < 5 || n > 20 {
		t.Errorf("%d lines of 100", n)
	}
	if p.Status().LinesDropped < 80 {
		t.Errorf("%d dropped", p.Status().LinesDropped)
	}
}

func TestAnnouncedPhases(t *testing.T) {
	f := newFixture(t, Config{})
	all := policy.RequestHead | policy.RequestBody | policy.ResponseHead | policy.ResponseBody
	for config, want := range map[string]policy.Phases{
		"":             all,
		`"phases 1"`:   policy.RequestHead,
		`"phases 6"`:   policy.RequestBody | policy.ResponseHead,
		`"phases 255"`: all,
	} {
		if got := f.make(spec(config)).Phases(); got != want {
			t.Errorf("%s: %b", config, got)
		}
	}
}

// TestAVMIsFreeEarlyIfTheGuestAllowsIt: while the upstream thinks, or a body is
// relayed.
func TestAVMIsFreeEarlyIfTheGuestAllowsIt(t *testing.T) {
	f := newFixture(t, Config{})
	for config, want := range map[string]string{`"phases 17"`: "true true", `"phases 1"`: "false false",
		`"phases 21"`: "false true", `"phases 25"`: "false false", `"phases 19"`: "true true"} {
		p := f.make(spec(config))
		x := newExchange()
		x.Response.Status, x.Response.Body = 200, &pieces{[]string{"x"}}
		run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(p.Status().Idle == 1)
		if err := run.Response(); err != nil {
			t.Fatal(err)
		}
		if got += fmt.Sprint(" ", p.Status().Idle == 1); got != want {
			t.Errorf("%s: free after the request and after the response's head: %s", config, got)
		}
		run.Close()
		if s := p.Status(); s.Idle != 1 || s.VMs != 1 {
			t.Errorf("%s: %+v", config, s)
		}
	}
}

// TestFuelIsTheSameEachTime: what an exchange costs can be billed. The first in a
// VM costs more: Go's runtime starts its helpers then.
func TestFuelIsTheSameEachTime(t *testing.T) {
	f := newFixture(t, Config{})
	var costs []uint64
	for i := range 2 {
		s := spec("")
		s.Name = fmt.Sprint("p", i)
		p := f.make(s)
		before := uint64(0)
		for range 10 {
			serve([]policy.Policy{p}, message{fields: "x-in: v"}, message{})
			costs = append(costs, p.Status().Fuel-before)
			before = p.Status().Fuel
		}
	}
	for i, cost := range costs {
		if i%10 > 0 && cost != costs[1] {
			t.Errorf("exchange %d costs %d, others %d", i, cost, costs[1])
		}
	}
}

// TestACircuitOpensAlthoughTrapsOvertakeEachOther: one that comes late has read
// fewer exchanges than were served before the window.
func TestACircuitOpensAlthoughTrapsOvertakeEachOther(t *testing.T) {
	c := circuit{pause: time.Minute}
	failure := errors.New("a trap")
	c.trapped(failure, 200)
	for range circuitTraps - 2 {
		if c.trapped(failure, 210) {
			t.Fatal("too early")
		}
	}
	if !c.trapped(failure, 190) {
		t.Error("it stays closed")
	}
}
