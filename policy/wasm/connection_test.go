package wasm

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// spoken is a connection without sockets, and whoever speaks on it.
type spoken struct {
	t     testing.TB
	of    *policy.Connection
	woken [2]chan struct{}
}

// connect opens a connection with policies.
func connect(t testing.TB, policies ...policy.Policy) (*spoken, error) {
	t.Helper()
	chain := policy.NewChain(policies, policy.ChainConfig{})
	if !chain.Connects() {
		t.Fatal("the policies know no connections")
	}
	x := newExchange()
	x.Request.Authority = []byte("db.example")
	s := &spoken{t: t, of: chain.Connect(x), woken: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}}
	t.Cleanup(s.of.Close)
	wake := func(c chan struct{}) func() {
		return func() {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
	s.of.Attach(wake(s.woken[0]), wake(s.woken[1]))
	return s, s.of.Open(t.Context())
}

// say has a piece passed and returns what comes out, "|" at its end if nothing follows,
// or the error.
func (s *spoken) say(d policy.Direction, piece string, end bool) string {
	out, ended, err := s.of.Pass(d, []byte(piece), end)
	var failed *policy.Error
	switch {
	case errors.As(err, &failed):
		return "failed"
	case err != nil:
		return err.Error()
	case ended:
		return string(out) + "|"
	}
	return string(out)
}

func (s *spoken) client(piece string) string  { return s.say(policy.Downstream, piece, false) }
func (s *spoken) service(piece string) string { return s.say(policy.Upstream, piece, false) }

// wake waits until a direction is to be asked again, and asks.
func (s *spoken) wake(d policy.Direction) string {
	s.t.Helper()
	select {
	case <-s.woken[d]:
	case <-time.After(2 * time.Minute):
		s.t.Fatal("nobody is woken")
	}
	return s.say(d, "", false)
}

func checkSaid(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %.200q, want %q", what, got, want)
	}
}

const closedByPolicy = "a policy has closed the connection"

// TestConnections: what a guest does to the bytes of a connection that carries no HTTP.
func TestConnections(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	for name, talk := range map[string]func(t *testing.T, s *spoken){
		"bytes are changed, each way": func(t *testing.T, s *spoken) {
			checkSaid(t, "client", s.client("hello\n"), "> hello\n")
			checkSaid(t, "service", s.service("hi\n"), "HI\n")
		},
		"what is held is shown again with what follows": func(t *testing.T, s *spoken) {
			checkSaid(t, "a part", s.client("he"), "")
			checkSaid(t, "another", s.client("ll"), "")
			checkSaid(t, "the service meanwhile", s.service("hi\n"), "HI\n")
			checkSaid(t, "the rest", s.client("o\n"), "> hello\n")
			checkSaid(t, "another line", s.client("you\n"), "> you\n")
		},
		"an end is passed on with what was held": func(t *testing.T, s *spoken) {
			checkSaid(t, "a part", s.client("bye"), "")
			checkSaid(t, "the end", s.say(policy.Downstream, "", true), "> bye|")
			checkSaid(t, "the service's end", s.say(policy.Upstream, "so long", true), "SO LONG|")
		},
		"an end that is held": func(t *testing.T, s *spoken) {
			checkSaid(t, "the end", s.say(policy.Upstream, "last (wait)", true), "")
			checkSaid(t, "client", s.client("release\n"), "release\n")
			checkSaid(t, "after the release", s.wake(policy.Upstream), "last (wait)|")
		},
		"one direction lets the other go": func(t *testing.T, s *spoken) {
			checkSaid(t, "service", s.service("one (wait) "), "")
			checkSaid(t, "service", s.service("two "), "")
			checkSaid(t, "asked for no reason", s.say(policy.Upstream, "", false), "")
			checkSaid(t, "client", s.client("release\n"), "release\n")
			checkSaid(t, "after the release", s.wake(policy.Upstream), "one (wait) two ")
			checkSaid(t, "and then", s.service("three"), "THREE")
		},
		"the guest closes it": func(t *testing.T, s *spoken) {
			checkSaid(t, "client", s.client("close\n"), closedByPolicy)
			checkSaid(t, "the service, woken", s.wake(policy.Upstream), closedByPolicy)
		},
		"properties": func(t *testing.T, s *spoken) {
			checkSaid(t, "source", s.client("property source/address\n"), "192.0.2.1:1234 0\n")
			checkSaid(t, "name", s.client("property connection/requested_server_name\n"), "db.example 0\n")
			checkSaid(t, "status", s.client("property response/code\n"), " 1\n")
		},
		"what only exchanges have": func(t *testing.T, s *spoken) {
			checkSaid(t, "statuses", s.client("http\n"), "2 1 2 2 2 2\n")
			checkSaid(t, "and it goes on", s.client("hello\n"), "> hello\n")
		},
		"a piece may grow": func(t *testing.T, s *spoken) {
			if n := len(s.client("grow\n")); n != 3<<20+1 {
				t.Errorf("%d bytes", n)
			}
		},
		"too much is held": func(t *testing.T, s *spoken) {
			part := strings.Repeat("x", 100_000)
			got, parts := "", 0
			for ; got == "" && parts < 20; parts++ {
				got = s.client(part)
			}
			if got != "failed" || parts != 11 {
				t.Errorf("after %d parts: %.100q", parts, got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := connect(t, p)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, s)
		})
	}
}

// TestThePoliciesOfAConnection see the client's bytes from first to last, and the
// service's from last to first.
func TestThePoliciesOfAConnection(t *testing.T) {
	f := newFixture(t, Config{})
	s, err := connect(t, f.make(spec("")), f.make(spec(`"other"`)))
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, "client", s.client("hello\n"), "> > hello\n")
	checkSaid(t, "service", s.service("hi (wait)"), "")
	checkSaid(t, "client", s.client("release\n"), "release\n")
	// The last lets it go, then the first is shown it, and holds it in turn.
	checkSaid(t, "service", s.wake(policy.Upstream), "")
	checkSaid(t, "client", s.client("release\n"), "release\n")
	checkSaid(t, "service", s.wake(policy.Upstream), "hi (wait)")
}

// TestConnectionsThatWait for what a service answers.
func TestConnectionsThatWait(t *testing.T) {
	f, g := newFixture(t, Config{}), newGranted(nil)
	for config, want := range map[string]string{
		`"connect ask answer: go-stream 2"`:    "> hello\n",
		`"connect ask answer: close-stream 2"`: closedByPolicy,
		`"connect close"`:                      closedByPolicy,
	} {
		s, err := connect(t, f.makeWith(spec(config), g))
		if err == nil {
			checkSaid(t, config, s.client("hello\n"), want)
		} else {
			checkSaid(t, config, err.Error(), want)
		}
	}
	p := f.makeWith(spec(""), g)
	s, err := connect(t, p)
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, "the client asks", s.client("ask answer: change 2 approved; answer: go-stream 2\n"), "")
	checkSaid(t, "approved", s.wake(policy.Downstream), "approved\n")
	checkSaid(t, "the client asks", s.client("ask answer: close-stream 3\n"), "")
	checkSaid(t, "denied", s.wake(policy.Downstream), closedByPolicy)
	settled(t, p, g)

	// A connection whose client gives up does not wait, nor has its policy failed.
	ctx, cancel := context.WithCancel(t.Context())
	waits := policy.NewChain([]policy.Policy{f.make(spec(`"connect wait"`))}, policy.ChainConfig{}).Connect(newExchange())
	defer waits.Close()
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := waits.Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// TestConnectionsWhosePolicyFails: what becomes of them is the failureMode's to say,
// and what a callback that failed has done is undone.
func TestConnectionsWhosePolicyFails(t *testing.T) {
	for name, c := range map[string]struct {
		config       string
		talk         func(s *spoken) string
		closed, open string
	}{
		"a trap at the beginning": {`"connect trap"`, func(s *spoken) string { return s.client("hello\n") }, "failed", "hello\n"},
		"no end at the beginning": {`"connect spin"`, func(s *spoken) string { return s.client("hello\n") }, "failed", "hello\n"},
		"a trap":                  {"", func(s *spoken) string { return s.client("tr") + s.client("ap\n") + s.client("x") }, "failedfailed", "trap\nx"},
		"no end":                  {"", func(s *spoken) string { return s.client("spin\n") + s.client("x") }, "failedfailed", "spin\nx"},
		"a trap while the other direction is held": {"", func(s *spoken) string {
			if held := s.service("(wait)"); held != "" {
				return held
			}
			if s.client("trap\n") == "failed" {
				return "failed"
			}
			return s.wake(policy.Upstream)
		}, "failed", "(wait)"},
	} {
		for mode, want := range map[weirv1.PolicySpec_FailureMode]string{weirv1.PolicySpec_CLOSED: c.closed, weirv1.PolicySpec_OPEN: c.open} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				f := newFixture(t, Config{Fuel: 2_000_000})
				sp := spec(c.config)
				sp.FailureMode = mode
				p := f.make(sp)
				s, err := connect(t, p)
				got := "failed"
				if err == nil {
					got = c.talk(s)
				}
				if strings.TrimSuffix(got, "failed") != strings.TrimSuffix(want, "failed") {
					t.Errorf("%q, want %q", got, want)
				}
				if s := p.Status(); s.Traps == 0 {
					t.Error("no trap is counted")
				}
			})
		}
	}
}

// TestAConnectionLosesItsVM to a trap in another that shares it, while it holds something.
func TestAConnectionLosesItsVM(t *testing.T) {
	f := newFixture(t, Config{VMs: 1})
	sp := spec("")
	sp.FailureMode = weirv1.PolicySpec_OPEN
	p := f.make(sp)
	one, err := connect(t, p)
	if err != nil {
		t.Fatal(err)
	}
	two, err := connect(t, p)
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, "held", one.client("hel"), "")
	checkSaid(t, "the other traps", two.client("trap\n"), "trap\n")
	checkSaid(t, "what was held", one.wake(policy.Downstream), "hel")
	checkSaid(t, "and then", one.client("lo\n"), "lo\n")
	three, err := connect(t, p)
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, "a new one", three.client("hello\n"), "> hello\n")
}

// TestBothWaysAtOnce, with the race detector to look on.
func TestBothWaysAtOnce(t *testing.T) {
	f, g := newFixture(t, Config{VMs: 2}), newGranted(nil)
	p := f.makeWith(spec(""), g)
	var all sync.WaitGroup
	for range 8 {
		s, err := connect(t, p)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for range 50 {
				if got := s.client("hello\n"); got != "> hello\n" {
					t.Errorf("client: %q", got)
				}
			}
			if got := s.client("ask answer: change 2 yes; answer: go-stream 2\n") + s.wake(policy.Downstream); got != "yes\n" {
				t.Errorf("after a call: %q", got)
			}
		})
		all.Go(func() {
			for range 50 {
				if got := s.service("hi"); got != "HI" {
					t.Errorf("service: %q", got)
				}
			}
		})
	}
	all.Wait()
	settled(t, p, g)
}

// TestTheEndOfAConnection: the guest is told who has ended what, and then that it is over.
func TestTheEndOfAConnection(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	s, err := connect(t, p)
	if err != nil {
		t.Fatal(err)
	}
	s.of.Disconnected(policy.Downstream, true)
	s.of.Disconnected(policy.Upstream, false)
	log := f.journal.String()
	first, second := strings.Index(log, "the client's connection is closed by its end"), strings.Index(log, "the service's connection is closed by us")
	if first < 0 || second < first {
		t.Error(log)
	}
}

// TestAPolicyOfHTTPKnowsNoConnections, and so is not used on them.
func TestAPolicyOfHTTPKnowsNoConnections(t *testing.T) {
	f := newFixture(t, Config{})
	module := smallest().bytes()
	f.modules[digest(module)] = module
	s := spec("")
	s.Digest = digest(module)
	if policy.NewChain([]policy.Policy{f.make(s)}, policy.ChainConfig{}).Connects() {
		t.Error("it does")
	}
}

// TestARawModuleOnAConnection, with a callback of each kind and nothing else.
func TestARawModuleOnAConnection(t *testing.T) {
	const i32const, call, drop = 0x41, 0x10, 0x1a
	f := newFixture(t, Config{})
	m := smallest()
	m.exports = []string{"proxy_abi_version_0_2_0", "proxy_on_memory_allocate", "proxy_on_new_connection", "proxy_on_downstream_data"}
	m.types = map[string][2]int{"proxy_on_memory_allocate": {1, 1}, "proxy_on_new_connection": {1, 1}, "proxy_on_downstream_data": {3, 1}}
	m.imports, m.imported = []string{"env.proxy_continue_stream"}, [2]int{1, 1}
	m.code = map[string][]byte{
		"proxy_on_memory_allocate": {i32const, 0},
		// Both pause, having said that they do not.
		"proxy_on_new_connection":  {i32const, 2, call, 0, drop, i32const, 1},
		"proxy_on_downstream_data": {i32const, 2, call, 0, drop, i32const, 1},
	}
	module := m.bytes()
	f.modules[digest(module)] = module
	sp := spec("")
	sp.Digest = digest(module)
	s, err := connect(t, f.make(sp))
	if err != nil {
		t.Fatal(err)
	}
	checkSaid(t, "client", s.client("hello"), "hello")
	checkSaid(t, "service", s.say(policy.Upstream, "hi", true), "hi|")
	checkSaid(t, "client", s.say(policy.Downstream, "", true), "|")
}
