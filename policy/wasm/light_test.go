package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// light is a configuration of the guest's: all phases, and light exchanges.
const light = `"phases 47"`

// begun is an exchange whose request has passed the chain.
type begun struct {
	t   testing.TB
	x   *exchange.Exchange
	run *policy.Run
}

func begin(t testing.TB, c *policy.Chain, request message) begun {
	t.Helper()
	x := newExchange()
	request.into(x, &x.Request.Fields, &x.Request.Body)
	b := begun{t, x, c.Begin(x)}
	if _, err := b.run.Request(); err != nil {
		t.Fatal(err)
	}
	return b
}

// end takes the answer through the chain, and returns its head.
func (b begun) end() (string, error) {
	defer b.run.Close()
	b.x.Response.Status = 200
	if err := b.run.Response(); err != nil {
		return "", err
	}
	return fmt.Sprint(b.x.Response.Status) + show(&b.x.Response.Fields), nil
}

func (b begun) mustEnd() string {
	b.t.Helper()
	head, err := b.end()
	if err != nil {
		b.t.Fatal(err)
	}
	return head
}

func (f *fixture) chain(config string) (*policy.Chain, *use) {
	f.t.Helper()
	p := f.make(spec(config))
	return policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}), p
}

func TestLightExchangesInFlightHoldNoVM(t *testing.T) {
	c, p := newFixture(t, Config{VMs: 4}).chain(light)
	var all []begun
	for i := range 64 {
		all = append(all, begin(t, c, message{fields: fmt.Sprint("x-in: ", i)}))
		if got := value(show(&all[i].x.Request.Fields), "x-out"); got != fmt.Sprint(i) {
			t.Errorf("%d: x-out %q", i, got)
		}
		if s := p.Status(); s.VMs != 1 || s.Idle != 1 {
			t.Fatalf("with %d in flight: %+v", i+1, s)
		}
	}
	for _, b := range all {
		if head := b.mustEnd(); value(head, "x-stamped") != "yes" {
			t.Error(head)
		}
	}
	// None of them was a context.
	if head := begin(t, c, do("light; response: lives")).mustEnd(); value(head, "x-lives") != "0 0" {
		t.Error(head)
	}
}

func TestAnExchangeThatIsKeptIsAContext(t *testing.T) {
	c, p := newFixture(t, Config{}).chain(light)
	for range 2 {
		kept := begin(t, c, do("response: set x-kept yes"))
		if s := p.Status(); s.VMs-s.Idle != 1 {
			t.Errorf("it holds no VM: %+v", s)
		}
		// A light one beside it gets another VM.
		if head := begin(t, c, message{}).mustEnd(); value(head, "x-stamped") != "yes" {
			t.Error(head)
		}
		if head := kept.mustEnd(); value(head, "x-kept") != "yes" {
			t.Error(head)
		}
		if s := p.Status(); s.VMs != 2 || s.Idle != 2 {
			t.Errorf("at the end: %+v", s)
		}
	}
}

// TestAnExchangeIsKeptAndForgotten: the guest may change its mind in any callback.
func TestAnExchangeIsKeptAndForgotten(t *testing.T) {
	c, p := newFixture(t, Config{}).chain(light)
	request := do("light; request: pause") // in the body's callbacks it is light
	request.body = []string{"a", "b"}
	b := begin(t, c, request)
	if s := p.Status(); s.VMs != 1 || s.Idle != 1 {
		t.Errorf("it is kept: %+v", s)
	}
	if got, err := readAll(b.x.Request.Body); got != "ab" || err != nil {
		t.Errorf("body %q, %v", got, err)
	}
	b.mustEnd()
	// It was never deleted: the guest had said that it keeps nothing.
	if head := begin(t, c, do("light; response: lives")).mustEnd(); value(head, "x-lives") != "0 0" {
		t.Error(head)
	}
}

// TestWhoPausesIsNotLight: whatever flag it returns.
func TestWhoPausesIsNotLight(t *testing.T) {
	for name, commands := range map[string]string{
		"pause":            "light; request: pause; request body: pause",
		"pause and resume": "light; request: continue",
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newFixture(t, Config{}).chain(light)
			var seen []Status
			request := do(commands)
			request.body = []string{"a", "b", "c"}
			x := newExchange()
			request.into(x, &x.Request.Fields, &x.Request.Body)
			x.Request.Body = &watched{x.Request.Body, func() { seen = append(seen, p.Status()) }}
			run := c.Begin(x)
			defer run.Close()
			if _, err := run.Request(); err != nil {
				t.Fatal(err)
			}
			if got, err := readAll(x.Request.Body); got != "abc" || err != nil {
				t.Errorf("body %q, %v", got, err)
			}
			if len(seen) == 0 || seen[0].Idle != 0 {
				t.Errorf("while it is paused: %+v", seen)
			}
			x.Response.Status = 200
			if err := run.Response(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// watched is a body that tells when it is asked.
type watched struct {
	exchange.Body
	asked func()
}

func (w *watched) Next() ([]byte, error) {
	w.asked()
	return w.Body.Next()
}

func TestALightExchangeIsAnswered(t *testing.T) {
	c, p := newFixture(t, Config{}).chain(light)
	for range 3 {
		o := serveChain(c, do("light; request: reply 418 tea"), message{})
		if o.err != nil || o.got != "tea" || !strings.HasPrefix(o.response, "418") || value(o.response, "x-reply") != "yes" || o.x.Details != "because" {
			t.Errorf("%v\n%s\n%s", o.err, o.response, o.got)
		}
		if o = serveChain(c, do("light; response: reply 503 late"), message{}); o.err != nil || o.got != "late" || !strings.HasPrefix(o.response, "503") {
			t.Errorf("%v\n%s\n%s", o.err, o.response, o.got)
		}
		if o = serveChain(c, message{fields: "x-in: v"}, message{}); o.err != nil || value(o.request, "x-out") != "v" || value(o.response, "x-stamped") != "yes" {
			t.Errorf("the next: %v\n%s", o.err, o.response)
		}
		if s := p.Status(); s.VMs != 1 || s.Idle != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// TestATrapCostsOneLightExchange: in whichever callback, and whoever else is in
// flight, kept or light.
func TestATrapCostsOneLightExchange(t *testing.T) {
	f := newFixture(t, Config{})
	for _, mode := range []weirv1.PolicySpec_FailureMode{weirv1.PolicySpec_CLOSED, weirv1.PolicySpec_OPEN} {
		for _, where := range []string{"request", "request body", "response", "response body"} {
			for _, how := range []string{"", "light; "} {
				t.Run(fmt.Sprint(mode, " ", how, where), func(t *testing.T) {
					s := spec(light)
					s.Name, s.FailureMode = t.Name(), mode
					p := f.make(s)
					c := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
					lightOne, keptOne := begin(t, c, message{}), begin(t, c, do("response: set x-kept yes"))

					request := do(how + where + ": add x-half 1; " + where + ": trap")
					request.body = []string{"here"}
					o := serveChain(c, request, message{body: []string{"there"}})
					var trap *Trap
					switch {
					case mode == weirv1.PolicySpec_CLOSED && !errors.As(o.err, &trap):
						t.Errorf("no trap: %v", o.err)
					case mode == weirv1.PolicySpec_OPEN && (o.err != nil || o.asked != "here" || o.got != "there" || halfDone(o)):
						t.Errorf("%v, asked %q, got %q\n%s\n%s", o.err, o.asked, o.got, o.request, o.response)
					}
					if head := lightOne.mustEnd(); value(head, "x-stamped") != "yes" {
						t.Errorf("a light exchange that was in flight: %s", head)
					}
					if head := keptOne.mustEnd(); value(head, "x-kept") != "yes" {
						t.Errorf("a kept exchange that was in flight: %s", head)
					}
					if o = serveChain(c, message{fields: "x-in: v"}, message{}); o.err != nil || value(o.request, "x-out") != "v" {
						t.Errorf("the next exchange: %v", o.err)
					}
					if s := p.Status(); s.Traps != 1 || s.VMs != s.Idle {
						t.Errorf("%+v", s)
					}
				})
			}
		}
	}
}

// TestLightExchangesCostTheSameEachTime: the first in a VM costs more.
func TestLightExchangesCostTheSameEachTime(t *testing.T) {
	c, p := newFixture(t, Config{}).chain(light)
	var costs []uint64
	for range 10 {
		before := p.Status().Fuel
		serveChain(c, message{fields: "x-in: v"}, message{})
		costs = append(costs, p.Status().Fuel-before)
	}
	for _, cost := range costs[1:] {
		if cost != costs[1] || cost == 0 {
			t.Fatalf("costs %v", costs)
		}
	}
}

func TestALightExchangeDoesNotAllocate(t *testing.T) {
	c, _ := newFixture(t, Config{}).chain(light)
	x := &exchange.Exchange{}
	for range 10 {
		exchangeOnce(t, c, x)
	}
	if n := testing.AllocsPerRun(200, func() { exchangeOnce(t, c, x) }); n > 0 && !raceDetector {
		t.Errorf("%v allocations", n)
	}
}

// TestSwapWhileLightExchangesRun: policies come and go, each is released while
// exchanges of its own are in flight; some of these trap, some are kept.
func TestSwapWhileLightExchangesRun(t *testing.T) {
	f := newFixture(t, Config{VMs: 4})
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		s := spec(light)
		s.Name = fmt.Sprint("p", round)
		made, err := f.host.Make(context.Background(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
		var all, half sync.WaitGroup
		half.Add(8)
		for g := range 8 {
			all.Go(func() {
				for i := range 10 {
					if i == 5 {
						half.Done()
					}
					request := message{fields: "x-in: v"}
					switch (g + i) % 8 {
					case 0:
						request = do("light; response: trap")
					case 1, 2:
						request = do("response: set x-kept yes")
					}
					o := serveChain(c, request, message{})
					var trap *Trap
					if o.err != nil && !errors.Is(o.err, errReleased) && !errors.Is(o.err, errLost) && !errors.As(o.err, &trap) {
						t.Error(o.err)
					}
				}
			})
		}
		half.Wait()
		made.Release()
		all.Wait()
		if len(f.host.modules) != 0 || len(f.host.policies) != 0 || len(f.host.shared.tenants) != 0 || len(f.host.meters.policies) != 0 {
			t.Fatal("something is left")
		}
	}
}

// TestALightExchangeOutlivesTheRelease: its last callback still finds a VM.
func TestALightExchangeOutlivesTheRelease(t *testing.T) {
	f := newFixture(t, Config{})
	made, err := f.host.Make(context.Background(), spec(light), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
	one, other, kept := begin(t, c, message{}), begin(t, c, do("light; response: trap")), begin(t, c, do("response: set x-kept yes"))
	made.Release()
	if _, err := other.end(); err == nil {
		t.Error("no trap")
	}
	if head := kept.mustEnd(); value(head, "x-kept") != "yes" || len(f.host.modules) != 1 {
		t.Error(head)
	}
	if head := one.mustEnd(); value(head, "x-stamped") != "yes" {
		t.Error(head)
	}
	if len(f.host.modules) != 0 || len(f.host.policies) != 0 {
		t.Error("something is left")
	}
}

// TestAPolicyIsNotFreedWhileItsVMsAreBeingClosed: not by the last exchange either,
// when it ends meanwhile.
func TestAPolicyIsNotFreedWhileItsVMsAreBeingClosed(t *testing.T) {
	f := newFixture(t, Config{})
	made, err := f.host.Make(context.Background(), spec(light), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := made.(*use)
	c := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	kept, last := begin(t, c, do("response: log 2 x")), begin(t, c, message{})
	kept.mustEnd()
	if s := p.Status(); s.Idle != 2 {
		t.Fatalf("%+v", s)
	}
	slow := p.pool.vms[0]
	slow.mu.Lock() // closing it takes as long as this is held
	var releasing sync.WaitGroup
	releasing.Go(made.Release)
	eventually(t, func() bool { n, _ := p.pool.count(); return n == 1 })
	last.mustEnd()
	f.host.mu.Lock()
	if len(f.host.modules) != 1 {
		t.Error("the module is gone while a VM of it is being closed")
	}
	f.host.mu.Unlock()
	slow.mu.Unlock()
	releasing.Wait()
	if len(f.host.modules) != 0 {
		t.Error("the module is left")
	}
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("it has not happened in a minute")
		}
	}
}

// TestContinueAtTheEndIsNotTheNextExchanges: what an exchange's last callbacks ask
// for must not answer the pause of the one that the filter serves next.
func TestContinueAtTheEndIsNotTheNextExchanges(t *testing.T) {
	f := newFixture(t, Config{})
	for _, config := range []string{"", light} {
		filter := f.make(spec(config)).NewFilter()
		once := func(commands string) policy.Verdict {
			x := newExchange()
			x.Request.Fields.Add([]byte("x-do"), []byte(commands))
			if err := filter.Begin(x); err != nil {
				t.Fatal(err)
			}
			defer filter.Close(x)
			verdict, err := filter.OnRequest(x, false)
			if err != nil {
				t.Fatal(err)
			}
			return verdict
		}
		once("log: continue")
		if got := once("request: pause"); got != policy.Hold {
			t.Errorf("%q: the next exchange's pause has become %v", config, got)
		}
	}
}

// TestVMsThatTrafficDoesNotNeedAreClosed: but for the last, and not one that is held.
func TestVMsThatTrafficDoesNotNeedAreClosed(t *testing.T) {
	c, p := newFixture(t, Config{}).chain("")
	var all []begun
	for range 3 {
		all = append(all, begin(t, c, message{}))
	}
	for _, b := range all[1:] {
		b.mustEnd()
	}
	now := time.Now()
	p.pool.trim(now)
	p.pool.trim(now.Add(idleFor - 1))
	if s := p.Status(); s.VMs != 3 {
		t.Errorf("too early: %+v", s)
	}
	begin(t, c, message{}).mustEnd() // uses one of the two
	p.pool.trim(now.Add(idleFor))
	if s := p.Status(); s.VMs != 2 || s.Idle != 1 {
		t.Errorf("one is needed and one is held: %+v", s)
	}
	all[0].mustEnd()
	p.pool.trim(now.Add(2 * idleFor))
	p.pool.trim(now.Add(4 * idleFor))
	if s := p.Status(); s.VMs != 1 || s.Idle != 1 {
		t.Errorf("the last stays: %+v", s)
	}
}

// TestVMsAreTrimmedHoweverExchangesCome: also where they begin and end in bursts, so
// that no exchange sees a round number of them.
func TestVMsAreTrimmedHoweverExchangesCome(t *testing.T) {
	c, p := newFixture(t, Config{}).chain("")
	kept := begin(t, c, message{})
	begin(t, c, message{}).mustEnd()
	kept.mustEnd()
	tally := p.pool.tally()
	burst := func(n int) {
		for range n {
			if err := p.pool.enter(tally); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			p.pool.leave(tally, 0)
		}
	}
	burst(1) // three have begun
	for range 2 * trimEvery / 64 {
		burst(64)
	}
	for i, v := range p.pool.vms {
		if !v.idleSince.IsZero() {
			return
		}
		t.Logf("nobody has looked at VM %d of %d", i, len(p.pool.vms))
	}
	t.Error("the VMs are never looked at")
}

// TestHintsMayBeLost: the pool's own list has every VM.
func TestHintsMayBeLost(t *testing.T) {
	c, p := newFixture(t, Config{}).chain(light)
	for range 3 {
		begin(t, c, message{}).mustEnd()
		runtime.GC()
		runtime.GC()
	}
	if s := p.Status(); s.VMs != 1 || s.Idle != 1 {
		t.Errorf("%+v", s)
	}
}

// TestAFlagThatWasNotAnnouncedIsAPause: as any other number is, and the exchange is
// a context as everywhere else.
func TestAFlagThatWasNotAnnouncedIsAPause(t *testing.T) {
	m := smallest()
	m.code["proxy_on_request_headers"] = []byte{0x41, 0x80, 0x02} // 256
	m.exports = append(m.exports, "proxy_on_request_body")
	m.types["proxy_on_request_body"] = [2]int{3, 1}
	m.code["proxy_on_request_body"] = []byte{0x41, 0}
	module := m.bytes()
	f := newFixture(t, Config{})
	f.modules[digest(module)] = module
	s := spec("")
	s.Digest = digest(module)
	p := f.make(s)
	filter, x := p.NewFilter(), newExchange()
	for range 2 {
		if err := filter.Begin(x); err != nil {
			t.Fatal(err)
		}
		if verdict, err := filter.OnRequest(x, false); verdict != policy.Hold || err != nil {
			t.Errorf("%v, %v", verdict, err)
		}
		if s := p.Status(); s.VMs != 1 || s.Idle != 0 {
			t.Errorf("it holds no VM: %+v", s)
		}
		filter.Close(x)
		if s := p.Status(); s.Idle != 1 || len(p.pool.vms[0].filters) != 0 {
			t.Errorf("at the end: %+v", s)
		}
	}
}
