package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// granted are services in this process: each is a function that answers.
type granted struct {
	services map[string]func(ctx context.Context, x *exchange.Exchange) error
	open     atomic.Int64      // calls that are not closed
	redis    map[string]string // addresses of services of bytes
	conns    atomic.Int64      // connections to them
}

func (g *granted) Names() (names []string) {
	for name := range g.services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (g *granted) Call(name string) (policy.Call, bool) {
	answer := g.services[name]
	if answer == nil {
		return nil, false
	}
	g.open.Add(1)
	return &grantedCall{g, answer}, true
}

// Bytes is for the services that have an address; those of this process speak none.
func (g *granted) Bytes(name string) (policy.Bytes, error) {
	address := g.redis[name]
	switch {
	case address == "" && g.services[name] == nil:
		return nil, policy.ErrNotGranted
	case address == "":
		return nil, policy.ErrNotBytes
	}
	g.open.Add(1)
	return &grantedBytes{g, address}, nil
}

type grantedBytes struct {
	of      *granted
	address string
}

func (b *grantedBytes) Same() any    { return b.address }
func (b *grantedBytes) Begin() error { return nil }
func (b *grantedBytes) Close()       { b.of.open.Add(-1) }
func (b *grantedBytes) Connect(ctx context.Context) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", b.address)
	if err != nil {
		return nil, err
	}
	b.of.conns.Add(1)
	return &grantedConn{Conn: c, of: b.of}, nil
}

type grantedConn struct {
	net.Conn
	of   *granted
	once sync.Once
}

func (c *grantedConn) Close() error {
	c.once.Do(func() { c.of.conns.Add(-1) })
	return c.Conn.Close()
}

type grantedCall struct {
	of     *granted
	answer func(ctx context.Context, x *exchange.Exchange) error
}

func (c *grantedCall) Do(ctx context.Context, x *exchange.Exchange) error { return c.answer(ctx, x) }
func (c *grantedCall) Close(*exchange.Exchange)                           { c.of.open.Add(-1) }

// echo answers with what it was asked.
func echo(_ context.Context, x *exchange.Exchange) error {
	body, err := readAll(x.Request.Body)
	if err != nil {
		return err
	}
	r := &x.Request
	x.Response.Status = 201
	x.Response.Fields.Add([]byte("x-up"), fmt.Appendf(nil, "%s %s %s %s", r.Method, r.Authority, r.Path, r.Fields.Get("x-from")))
	x.Response.Body = exchange.Bytes([]byte("<" + body + ">"))
	if r.Trailers.Len() > 0 {
		x.Response.Trailers.Add([]byte("x-up-trailer"), r.Trailers.Get("x-after"))
	}
	return nil
}

// never answers.
func never(ctx context.Context, _ *exchange.Exchange) error {
	<-ctx.Done()
	return ctx.Err()
}

// gate answers as echo does, once it is opened.
type gate struct{ open, asked chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{}, 100)} }

func (g *gate) answer(ctx context.Context, x *exchange.Exchange) error {
	g.asked <- struct{}{}
	select {
	case <-g.open:
		return echo(ctx, x)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newGranted(more map[string]func(context.Context, *exchange.Exchange) error) *granted {
	g := &granted{services: map[string]func(context.Context, *exchange.Exchange) error{
		"users": echo, "nobody": never,
		"down": func(context.Context, *exchange.Exchange) error { return errors.New("connection refused") },
		"long": func(_ context.Context, x *exchange.Exchange) error {
			x.Response.Status, x.Response.Body = 200, exchange.Bytes(make([]byte, 2<<20))
			return nil
		},
		"torn": func(_ context.Context, x *exchange.Exchange) error {
			x.Response.Status, x.Response.Body = 200, tornBody{}
			return nil
		},
	}}
	for name, answer := range more {
		g.services[name] = answer
	}
	return g
}

type tornBody struct{}

func (tornBody) Next() ([]byte, error) { return nil, io.ErrUnexpectedEOF }
func (tornBody) Length() int64         { return -1 }

// makeWith makes a policy that may ask the services.
func (f *fixture) makeWith(s policy.Spec, g policy.Services) *use {
	f.t.Helper()
	p, err := f.host.Make(context.Background(), s, g)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(p.Release)
	return p.(*use)
}

// settled waits until no call is in flight and its VM is given back.
func settled(t *testing.T, p *use, g *granted) {
	t.Helper()
	eventually(t, func() bool {
		return g.open.Load() == 0 && p.calling.Load() == 0 && p.pool.calls.ended.Load() == p.pool.calls.begun.Load()
	})
}

// TestCalls: the guest asks a service, and this is what becomes of the exchange.
// Kong's cases of the same kind are in t/03-proxy_wasm/hfuncs/130 to 133, Envoy's in
// test_data/async_call_rust.rs.
func TestCalls(t *testing.T) {
	f, g := newFixture(t, Config{}), newGranted(nil)
	policies := map[string]*use{}
	for _, config := range []string{`"plain"`, light} {
		policies[config] = f.makeWith(spec(config), g)
	}
	for _, test := range []struct {
		name              string
		do                string
		request, response message
		field, want       string // "request NAME" or "response NAME"
		status            string
		asked             string // the body that the service gets
		err, log          string
	}{
		{name: "the answer's head, body and trailers", do: "request: call users /id hello; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 2,7,0 201 up=POST up.example /id guest body=<hello> trailer= code=0"},
		{name: "trailers both ways", do: "request: call users /id trailers; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 2,10,1 201 up=POST up.example /id guest body=<trailers> trailer=t code=0"},
		{name: "without a body", do: "request: call users /; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 2,2,0 201 up=GET up.example / guest body=<> trailer= code=0"},
		{name: "the pause of every kind", do: "request: call users /; request: wait 4; answer: set x-a 1; answer: go", request: message{body: []string{"b"}},
			field: "request x-a", want: "1", asked: "b"},
		{name: "an answer instead", do: "request: call users /; request: wait 1; answer: reply 403 no", status: "403"},
		{name: "two answers instead", do: "request: call users /; request: wait 1; answer: reply 403 no; answer: reply 404 nothing", status: "403"},
		{name: "the end instead", do: "request: call users /; request: wait 1; answer: close", status: "502"},
		{name: "one call after the other", do: "request: call users /1; request: wait 1; answer: again",
			field: "request x-take", want: "http 2,2,0 201 up=GET up.example /2 guest body=<> trailer= code=0"},
		{name: "who does not wait goes on", do: "request: call users /; answer: set x-late 1; response: set x-a 1", field: "response x-a", want: "1"},
		{name: "a service that cannot be reached", do: "request: call down /; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=14 connection refused"},
		{name: "a service that does not answer in time", do: "request: call-ms 5 nobody /; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=4 context deadline exceeded"},
		{name: "an answer that is too long", do: "request: call long /; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=8 its answer is larger than a policy may keep"},
		{name: "an answer that breaks off", do: "request: call torn /; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=14 unexpected EOF"},
		{name: "a service that is not granted", do: "request: call Users /", field: "request x-call", want: "call 2",
			log: `cannot call service \"Users\": the policy is granted down, long, nobody, torn, users (spec.services)`},
		{name: "a path that is none", do: "request: call users nowhere", field: "request x-call", want: "call 2"},

		{name: "with the end of the body", do: "request body: when-ended call users /; request body: when-ended wait 1; answer: upper; answer: go",
			request: message{body: []string{"ab", "cd"}}, asked: "abcd"},
		{name: "the body is changed by an answer", do: "request body: pause-once 4; request body: when-ended call users /; request body: when-ended wait 1; answer: replace ABCD; answer: go",
			request: message{body: []string{"ab", "cd"}}, asked: "abcdABCD"},
		{name: "with the response", do: "response: call users /; response: wait 1; response answer: take; response answer: go",
			field: "response x-take", want: "http 2,2,0 201 up=GET up.example / guest body=<> trailer= code=0"},
		{name: "another answer with the response", do: "response: call users /; response: wait 1; response answer: reply 503 no", status: "503"},
		{name: "continuing the response does not continue the request", do: "request: call users /; request: wait 1; answer: go-response; answer: go; answer: set x-a 1",
			field: "request x-a", want: "1"},

		{name: "for a time", do: "request: await 5 0 ; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=4 context deadline exceeded"},
		{name: "for shared data that is there", do: "request: shared there v 0; request: await 60000 0 there; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 1,0,0 204 up= body= trailer= code=0"},
		{name: "for shared data that does not come", do: "request: await 5 4294967295 missing; request: wait 1; answer: take; answer: go",
			field: "request x-take", want: "http 0,0,0  up= body= trailer= code=4 context deadline exceeded"},
		{name: "for a key that is none", do: "request: await 5 0 " + strings.Repeat("k", maxSharedKey+1), field: "request x-await", want: "await 2"},

		{name: "a trap in the answer is the exchange's", do: "request: call users /; request: wait 1; answer: trap", err: "proxy_on_http_call_response trapped"},
	} {
		for config := range policies {
			t.Run(test.name+" "+config, func(t *testing.T) {
				p, request := policies[config], test.request
				request.fields = "x-do: " + test.do
				if config == light {
					request.fields = "x-do: light; " + test.do
				}
				o := serve([]policy.Policy{p}, request, test.response)
				if test.err != "" || o.err != nil {
					if o.err == nil || test.err == "" || !strings.Contains(o.err.Error(), test.err) {
						t.Fatalf("error %v, want %q", o.err, test.err)
					}
				}
				head, name, _ := strings.Cut(test.field, " ")
				if got := value(map[string]string{"request": o.request, "response": o.response}[head], name); got != test.want {
					t.Errorf("%s is %q, want %q\n%s\n%s\n%s", test.field, got, test.want, o.request, o.response, f.journal)
				}
				if test.status != "" && !strings.HasPrefix(o.response, test.status) {
					t.Errorf("answered with %q, want %s", o.response, test.status)
				}
				if test.asked != "" && o.asked != test.asked {
					t.Errorf("the service is sent %q, want %q", o.asked, test.asked)
				}
				if !strings.Contains(f.journal.String(), test.log) {
					t.Errorf("log: %s", f.journal)
				}
				settled(t, p, g)
				if s := p.Status(); s.VMs != s.Idle {
					t.Errorf("a VM is still held: %+v", s)
				}
			})
		}
	}
}

// TestAPauseThatNothingEnds ends with the exchange's deadline, by the policy's
// failure mode, and with the exchange.
func TestAPauseThatNothingEnds(t *testing.T) {
	f, g := newFixture(t, Config{}), newGranted(nil)
	open := spec("")
	open.Name, open.FailureMode = "open", weirv1.PolicySpec_OPEN
	for _, s := range []policy.Spec{spec(""), open} {
		p := f.makeWith(s, g)
		x := newExchange()
		x.Deadline = time.Now().Add(10 * time.Millisecond)
		x.Request.Fields.Add([]byte("x-do"), []byte("request: set x-a 1; request: wait 1"))
		run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
		_, err := run.Request()
		var failed *policy.Error
		switch {
		case s.FailureMode == weirv1.PolicySpec_CLOSED && (!errors.As(err, &failed) || failed.Status != 504):
			t.Errorf("error %v", err)
		case s.FailureMode == weirv1.PolicySpec_OPEN && (err != nil || x.Request.Fields.Has("x-a")):
			t.Errorf("error %v, and it is changed: %v", err, x.Request.Fields.Has("x-a"))
		}
		run.Close()
		if s := p.Status(); s.VMs != 1 || s.Idle != 1 || s.Traps != 0 {
			t.Errorf("%+v", s)
		}
	}
	if !strings.Contains(f.journal.String(), "nothing is under way that could continue it") {
		t.Error(f.journal)
	}
}

// TestAnExchangeThatIsGivenUpTakesItsCallsWithIt, but not those that it had not
// waited for.
func TestAnExchangeThatIsGivenUpTakesItsCallsWithIt(t *testing.T) {
	f := newFixture(t, Config{})
	gate := newGate()
	ended := make(chan error, 10)
	g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{
		"gate": gate.answer,
		"slow": func(ctx context.Context, x *exchange.Exchange) error {
			gate.asked <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		},
	})
	p := f.makeWith(spec(""), g)
	chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})

	x, done := newExchange(), make(chan struct{})
	x.Done = done
	x.Request.Fields.Add([]byte("x-do"), []byte("request: call slow /; request: wait 1; answer: go"))
	run, result := chain.Begin(x), make(chan error)
	go func() {
		_, err := run.Request()
		run.Close()
		result <- err
	}()
	<-gate.asked
	close(done)
	if err := <-result; !errors.Is(err, errUnwanted) {
		t.Errorf("error %v", err)
	}
	if err := <-ended; err != context.Canceled {
		t.Errorf("the call ended by %v", err)
	}
	settled(t, p, g)

	// Nobody waits for this one: it runs on, and the root context hears of it.
	o := serve([]policy.Policy{p}, do("request: call gate /; log: call gate /log"), message{})
	if o.err != nil {
		t.Fatal(o.err)
	}
	<-gate.asked
	<-gate.asked
	if s := p.Status(); s.Idle != s.VMs-1 {
		t.Errorf("who waits for an answer is not idle: %+v", s)
	}
	close(gate.open)
	settled(t, p, g)
	eventually(t, func() bool {
		return strings.Count(f.journal.String(), "answered without its exchange: http 2,2,0 201") == 2
	})
}

// TestCallsOutsideOfExchanges: while a plugin is configured, and in its ticks.
func TestCallsOutsideOfExchanges(t *testing.T) {
	f, g := newFixture(t, Config{}), newGranted(nil)
	for config, path := range map[string]string{`"configure call users /configure"`: "/configure", `"tick call users /tick"`: "/tick"} {
		s := spec(config)
		s.Tenant = path
		p := f.makeWith(s, g)
		want := "up.example " + path + " guest"
		eventually(t, func() bool {
			data, _, _ := p.data.get(nil, []byte("answered"), func(int) {})
			return strings.Contains(string(data), want)
		})
	}
}

// TestAReleasedPolicyLeavesNoCall: released while calls are in flight, whoever made
// them, it is freed when they have ended; and the host ends those that do not.
func TestAReleasedPolicyLeavesNoCall(t *testing.T) {
	gate := newGate()
	g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"gate": gate.answer})
	f := newFixture(t, Config{})
	p, err := f.host.Make(context.Background(), spec(`"configure call gate /configure"`), g)
	if err != nil {
		t.Fatal(err)
	}
	if o := serve([]policy.Policy{p}, do("log: call gate /log"), message{}); o.err != nil {
		t.Fatal(o.err)
	}
	<-gate.asked
	<-gate.asked
	p.Release()
	pool := &p.(*use).pool
	isFreed := func() bool {
		pool.mu.Lock()
		defer pool.mu.Unlock()
		return pool.freed
	}
	if isFreed() {
		t.Error("it is freed under its calls")
	}
	close(gate.open)
	eventually(t, isFreed)
	settled(t, p.(*use), g)

	last, err := f.host.Make(context.Background(), spec(`"configure call nobody /"`), g)
	if err != nil {
		t.Fatal(err)
	}
	last.Release()
	if err := f.host.Close(); err != nil { // which waits
		t.Error(err)
	}
	if g.open.Load() != 0 || !last.(*use).pool.freed {
		t.Error("a call has outlived its host")
	}
}

// TestCallsAreBounded by policy and by tenant.
func TestCallsAreBounded(t *testing.T) {
	for name, config := range map[string]Config{"policy": {Calls: 2}, "tenant": {TenantCalls: 2}} {
		t.Run(name, func(t *testing.T) {
			f, gate := newFixture(t, config), newGate()
			g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"gate": gate.answer})
			p := f.makeWith(spec(""), g)
			o := serve([]policy.Policy{p}, do("request: call gate /1; request: call gate /2; request: call gate /3"), message{})
			if got := value(o.request, "x-call"); got != "call 10" {
				t.Errorf("the third: %q", got)
			}
			close(gate.open)
			settled(t, p, g)
			o = serve([]policy.Policy{p}, do("request: call gate /4; request: wait 1; answer: take; answer: go"), message{})
			if got := value(o.request, "x-take"); !strings.Contains(got, "/4") {
				t.Errorf("later: %q", got)
			}
		})
	}
}

// TestManyExchangesWait at once, more than there are VMs: each hears its own answer,
// and the VM of one that waits is not given to others as long as there are more.
func TestManyExchangesWait(t *testing.T) {
	const n = 40
	f, gate := newFixture(t, Config{VMs: 4}), newGate()
	g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"gate": gate.answer})
	p := f.makeWith(spec(""), g)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			path := fmt.Sprintf("/%d", i)
			o := serve([]policy.Policy{p}, do("request: call gate "+path+"; request: wait 1; answer: take; answer: go; response: stamp"), message{})
			if got := value(o.request, "x-take"); !strings.Contains(got, "up.example "+path+" guest") || o.err != nil {
				t.Errorf("%s: %q, %v", path, got, o.err)
			}
		})
	}
	for range n {
		<-gate.asked
	}
	if s := p.Status(); s.VMs != 4 || s.Idle != 0 || s.Calls != n {
		t.Errorf("%+v", s)
	}
	close(gate.open)
	all.Wait()
	settled(t, p, g)
}

// TestATrapInAnAnswerIsTheEndOfThoseThatShareItsVM, and of no others.
func TestATrapInAnAnswerIsTheEndOfThoseThatShareItsVM(t *testing.T) {
	f, gate := newFixture(t, Config{VMs: 1}), newGate()
	g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"gate": gate.answer})
	p := f.makeWith(spec(""), g)
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i, last := range []string{"trap", "trap"} {
		all.Go(func() {
			errs[i] = serve([]policy.Policy{p}, do("request: call gate /; request: wait 1; answer: "+last), message{}).err
		})
	}
	<-gate.asked
	<-gate.asked
	close(gate.open)
	all.Wait()
	lost := 0
	for _, err := range errs {
		if errors.Is(err, errLost) {
			lost++
		} else if TrapOf(err) == nil {
			t.Errorf("%v", err)
		}
	}
	if lost != 1 {
		t.Errorf("%v", errs)
	}
	settled(t, p, g)
	if o := serve([]policy.Policy{p}, do("request: set x-a 1"), message{}); value(o.request, "x-a") != "1" {
		t.Errorf("afterwards: %v", o.err)
	}
}
