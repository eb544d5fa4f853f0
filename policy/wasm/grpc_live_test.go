package wasm

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// talker is a service of gRPC whose streams the test holds: heard is what it gets,
// and what is put into say it answers. Closed, say ends the call well.
type talker struct {
	heard chan string
	say   chan string
}

func newTalker() *talker { return &talker{make(chan string, 100), make(chan string, 100)} }

func (s *talker) answer(ctx context.Context, x *exchange.Exchange) error {
	go func() {
		in := frames{body: x.Request.Body, limit: 1000}
		for {
			m, err := in.next()
			if err != nil {
				s.heard <- map[bool]string{true: "the end", false: "it broke off"}[err == io.EOF]
				return
			}
			s.heard <- string(m)
		}
	}()
	x.Response.Status = 200
	x.Response.Body = &speech{ctx, s, x}
	return nil
}

// hears waits until the service has got this.
func (s *talker) hears(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-s.heard:
			if got != w {
				t.Errorf("the service hears %q, want %q", got, w)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("the service does not hear %q", w)
		}
	}
}

type speech struct {
	ctx context.Context
	of  *talker
	x   *exchange.Exchange
}

func (b *speech) Length() int64 { return -1 }
func (b *speech) Next() ([]byte, error) {
	select {
	case <-b.ctx.Done():
		return nil, b.ctx.Err()
	case m, ok := <-b.of.say:
		if !ok {
			b.x.Response.Trailers.Add([]byte("grpc-status"), []byte("0"))
			return nil, io.EOF
		}
		return appendFrame(nil, []byte(m)), nil
	}
}

// TestWhatAGuestDoesWithAnOpenCall: it cancels it, and hears no more of it; it closes
// its side, and hears what is answered yet; and what a token means that is none.
// Envoy's cases of the same kind are in test_data/grpc_stream_rust.rs and
// test_data/grpc_call_rust.rs.
func TestWhatAGuestDoesWithAnOpenCall(t *testing.T) {
	for _, c := range []struct {
		name, do string
		did      string   // the statuses of what the guest does
		hears    []string // the service
		say      []string // and answers then
		told     string   // the callbacks that the guest has had, with its calls' tokens
		took     string
	}{
		{name: "a stream that is cancelled", do: "request: grpc stream talk Chat a; request: grpc-cancel; request: grpc-send last b; request: grpc-cancel; request: grpc-close",
			did: "cancel=0 send=1 cancel=1 close=1", say: []string{"too late"}},
		{name: "a stream that is cancelled by what it says", do: "request: grpc stream talk Chat a; request: wait 1; heard message: grpc-cancel; heard message: go",
			did: "cancel=0", hears: []string{"a", "it broke off"}, say: []string{"one", "two"}, told: "initial 1,message 1"},
		{name: "a unary call that is cancelled", do: "request: grpc unary talk Say a; request: grpc-cancel", did: "cancel=0", say: []string{"too late"}},
		{name: "a unary call that is closed", do: "request: grpc unary talk Say a; request: grpc-close", did: "close=0", say: []string{"too late"}},
		{name: "a stream whose sending is closed", do: "request: grpc stream talk Chat a; request: grpc-close; request: grpc-send last b; request: wait 1; answer: take; answer: go",
			did: "close=0 send=10", hears: []string{"a", "the end"}, say: []string{"one", "two", ""},
			told: "initial 1,message 1,message 1,trailing 1,closed 1", took: "closed 0 initial ,one,two,trailing"},
		{name: "a message that is the last", do: "request: grpc stream talk Chat; request: grpc-end last z; request: wait 1; answer: take; answer: go",
			did: "end=0", hears: []string{"z", "the end"}, say: []string{""}, told: "initial 1,trailing 1,closed 1", took: "closed 0 initial ,trailing"},
		{name: "messages by and by", do: "request: grpc stream talk Chat a; request: wait 1; heard message: grpc-send last b; heard message: grpc-close; answer: take; answer: go",
			did: "send=0 close=0", hears: []string{"a"}, say: []string{"one", ""}, told: "initial 1,message 1,trailing 1,closed 1"},
		{name: "tokens that no call has", do: "request: grpc-send 0 a; request: grpc-cancel 0; request: grpc-close 0; request: grpc-send 7 a; request: grpc-cancel 7; request: grpc-close 7",
			did: "send=2 cancel=2 close=2 send=2 cancel=2 close=2"},
		{name: "the token of a call of HTTP", do: "request: call nobody /; request: grpc-send last a; request: grpc-cancel; request: grpc-close; request: wait 1; call: go",
			did: "send=2 cancel=2 close=2"},
		{name: "to send on a unary call", do: "request: grpc unary talk Say a; request: grpc-send last b; request: grpc-cancel", did: "send=2 cancel=0"},
		{name: "a call that is over", do: "request: grpc unary talk Say a; request: wait 1; answer: grpc-cancel; answer: grpc-close; answer: go",
			did: "cancel=1 close=1", hears: []string{"a", "the end"}, say: []string{"b", ""}, told: "answer 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			talk := newTalker()
			f := newFixture(t, Config{VMs: 1})
			g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"talk": talk.answer})
			p := f.makeWith(spec(""), g)
			chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
			x := newExchange()
			if strings.Contains(c.do, "call: go") { // nothing will: its time is over at once
				x.Deadline = time.Now()
			}
			x.Request.Fields.Add([]byte("x-do"), []byte(c.do))
			run, result := chain.Begin(x), make(chan error)
			go func() {
				_, err := run.Request()
				result <- err
			}()
			if len(c.hears) == 0 {
				<-result
			}
			first := min(1, len(c.hears))
			talk.hears(t, c.hears[:first]...)
			for _, m := range c.say {
				if m == "" {
					close(talk.say)
				} else {
					talk.say <- m
				}
			}
			if len(c.hears) > 0 {
				if err := <-result; err != nil {
					t.Error(err)
				}
			}
			talk.hears(t, c.hears[first:]...)
			if got := string(x.Request.Fields.Get("x-grpc")); got != c.did {
				t.Errorf("the guest's calls return %q, want %q", got, c.did)
			}
			if got := string(x.Request.Fields.Get("x-take")); !strings.HasPrefix(got, c.took) {
				t.Errorf("it is told %q, want %q", got, c.took)
			}
			run.Close()
			settled(t, p, g)
			o := serve([]policy.Policy{p}, do("request: grpc-heard"), message{})
			if got := value(o.request, "x-heard"); got != c.told {
				t.Errorf("callbacks %q, want %q", got, c.told)
			}
		})
	}
}

// TestAnOpenCallGoesWithItsVM, however that goes: the service's end of it breaks off,
// and nothing is left.
func TestAnOpenCallGoesWithItsVM(t *testing.T) {
	const open = "request: grpc stream talk Chat a"
	for name, end := range map[string]func(*fixture, *use){
		"a trap": func(f *fixture, p *use) {
			if o := serve([]policy.Policy{p}, do("request: trap"), message{}); o.err == nil {
				f.t.Error("no trap")
			}
		},
		"the policy is released": func(_ *fixture, p *use) { p.Release() },
		"the host is closed": func(f *fixture, p *use) {
			p.Release()
			if err := f.host.Close(); err != nil {
				f.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			talk := newTalker()
			f := newFixture(t, Config{VMs: 1})
			g := newGranted(map[string]func(context.Context, *exchange.Exchange) error{"talk": talk.answer})
			p := f.makeWith(spec(""), g)
			if o := serve([]policy.Policy{p}, do(open), message{}); o.err != nil {
				t.Fatal(o.err)
			}
			talk.hears(t, "a")
			if s := p.Status(); s.Calls != 1 || s.VMs != 1 {
				t.Errorf("%+v", s)
			}
			end(f, p)
			talk.hears(t, "it broke off")
			settled(t, p, g)
			if s := p.Status(); s.Calls != 0 || s.VMs != 0 {
				t.Errorf("left: %+v", s)
			}
		})
	}
}

// TestWhatAStreamHoldsIsBounded: a service that does not read is not written for
// without end.
func TestWhatAStreamHoldsIsBounded(t *testing.T) {
	o := newOutbox(100)
	for i := range 10 {
		if got, want := o.put(make([]byte, 45), false), i < 2; got != want {
			t.Errorf("message %d: %v, want %v", i, got, want)
		}
	}
	if b, err := o.Next(); len(b) != 100 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if !o.put([]byte("z"), true) || o.put([]byte("a"), false) {
		t.Error("room, or a message after the last one")
	}
	if b, err := o.Next(); string(b) != "\x00\x00\x00\x00\x01z" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := o.Next(); err != io.EOF {
		t.Error(fmt.Errorf("the end: %w", err))
	}
}
