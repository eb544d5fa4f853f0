package ratelimit

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

func from(address string, header ...string) policytest.Exchange {
	return policytest.Exchange{
		Request:    policytest.Message{Header: policytest.Fields(header...)},
		Properties: map[string]string{"source.address": address},
	}
}

func TestLimit(t *testing.T) {
	const two = `{"name": "orders", "limit": 2, "window": 60}`
	p := policytest.Start(t, newLimiter, two)
	p.Host().Advance(15 * time.Second)
	for i, want := range []struct{ status, limit string }{
		{"200", `"orders";r=1;t=45`},
		{"200", `"orders";r=0;t=45`},
		{"429", `"orders";r=0;t=45`},
		{"429", `"orders";r=0;t=45`},
	} {
		x := p.Do(from("192.0.2.1:4711"))
		if x.Status() != want.status || x.Response.Header.Get("ratelimit") != want.limit {
			t.Errorf("request %d: %s with RateLimit %s; want %v", i+1, x.Status(), x.Response.Header.Get("ratelimit"), want)
		}
		if got := x.Response.Header.Get("ratelimit-policy"); got != `"orders";q=2;w=60` {
			t.Errorf("request %d: RateLimit-Policy is %s", i+1, got)
		}
	}
	if got := p.Host().Metric("ratelimit_refused_total"); got != 2 {
		t.Errorf("%d refusals counted, want 2", got)
	}
	p.Host().Advance(45 * time.Second)
	if x := p.Do(from("192.0.2.1:4711")); x.Status() != "200" || x.Response.Header.Get("ratelimit") != `"orders";r=1;t=60` {
		t.Errorf("in the next window: %s with %v", x.Status(), x.Response.Header)
	}
}

func TestRefusal(t *testing.T) {
	p := policytest.Start(t, newLimiter, `{"limit": 1, "window": 10}`)
	p.Host().Advance(8500 * time.Millisecond)
	p.Do(from(""))
	x := p.Do(from("", "x-request-id", "r-1"))
	if got := x.Response.Header.Get("retry-after"); got != "2" {
		t.Errorf("Retry-After is %q after 8.5 s of 10, want 2", got)
	}
	var problem struct {
		Type, RequestID string
		Status          int
	}
	if err := json.Unmarshal([]byte(x.Response.Body), &problem); err != nil || problem.Status != 429 ||
		problem.RequestID != "r-1" || !strings.HasSuffix(problem.Type, "#quota-exceeded") {
		t.Errorf("the problem is %+v, %v", problem, err)
	}
}

func TestWhoIsCounted(t *testing.T) {
	for _, c := range []struct {
		name, config  string
		first, second policytest.Exchange
		together      bool
	}{
		{"one address, two ports", `{"limit": 1}`, from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{"two addresses", `{"limit": 1}`, from("192.0.2.1:1"), from("192.0.2.2:1"), false},
		{"one IPv6 network", `{"limit": 1}`, from("[2001:db8::1]:1"), from("[2001:db8::ffff]:1"), true},
		{"two IPv6 networks", `{"limit": 1}`, from("[2001:db8::1]:1"), from("[2001:db8:0:1::1]:1"), false},
		{"IPv4 in IPv6", `{"limit": 1}`, from("[::ffff:192.0.2.1]:1"), from("192.0.2.1:1"), true},
		{"one consumer, two addresses", `{"limit": 1, "header": "x-consumer"}`,
			from("192.0.2.1:1", "x-consumer", "alice"), from("192.0.2.2:1", "x-consumer", "alice"), true},
		{"two consumers, one address", `{"limit": 1, "header": "x-consumer"}`,
			from("192.0.2.1:1", "x-consumer", "alice"), from("192.0.2.1:1", "x-consumer", "bob"), false},
		{"no consumer: the address", `{"limit": 1, "header": "x-consumer"}`, from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{"a consumer that reads like an address", `{"limit": 1, "header": "x-consumer"}`,
			from("192.0.2.1:1"), from("192.0.2.9:1", "x-consumer", "192.0.2.1"), false},
		{"long names that end differently", `{"limit": 1, "header": "x-consumer"}`,
			from("", "x-consumer", strings.Repeat("a", 500)), from("", "x-consumer", strings.Repeat("a", 499)+"b"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policytest.Start(t, newLimiter, c.config)
			if x := p.Do(c.first); x.Status() != "200" {
				t.Fatalf("the first request got %s", x.Status())
			}
			if x := p.Do(c.second); (x.Status() == "429") != c.together {
				t.Errorf("the second request got %s; counted together: want %v", x.Status(), c.together)
			}
		})
	}
}

func TestSandboxesAgree(t *testing.T) {
	const sandboxes, each, limit = 4, 50, 120
	host := policytest.NewHost()
	var passed atomic.Int64
	var group sync.WaitGroup
	for range sandboxes {
		p := policytest.StartOn(t, host, newLimiter, fmt.Sprintf(`{"limit": %d}`, limit))
		group.Go(func() {
			for range each {
				if p.Do(from("192.0.2.1:1")).Status() == "200" {
					passed.Add(1)
				}
			}
		})
	}
	group.Wait()
	if passed.Load() != limit {
		t.Errorf("%d requests passed, want %d", passed.Load(), limit)
	}
}

func TestWhoeverWasSlowerLooksAgain(t *testing.T) {
	p := policytest.Start(t, newLimiter, `{"limit": 5}`)
	p.Host().Conflict(3)
	if x := p.Do(from("192.0.2.1:1")); x.Response.Header.Get("ratelimit") != `"default";r=4;t=60` {
		t.Errorf("after three conflicts: %s with %v", x.Status(), x.Response.Header)
	}
}

func TestPassesWhenItCannotCount(t *testing.T) {
	p := policytest.Start(t, newLimiter, `{"limit": 1}`)
	p.Host().Conflict(1000)
	x := p.Do(from("192.0.2.1:1"))
	if x.Status() != "200" || x.Response.Header.Get("ratelimit") != "" {
		t.Errorf("got %s with %v", x.Status(), x.Response.Header)
	}
	if logged := p.Host().Logged(); len(logged) != 1 || !strings.Contains(logged[0], "count a request") {
		t.Errorf("logged %q", logged)
	}
}

func TestTheTableDoesNotGrow(t *testing.T) {
	const slots = 16
	p := policytest.Start(t, newLimiter, fmt.Sprintf(`{"limit": 3, "slots": %d}`, slots))
	for i := range 100 {
		if x := p.Do(from(fmt.Sprintf("192.0.2.%d:1", i))); x.Status() != "200" {
			t.Fatalf("caller %d got %s at once: a crowded table must not be strict", i, x.Status())
		}
	}
	if got := p.Host().SharedKeys(); got > slots {
		t.Errorf("%d keys in the shared data, want at most %d", got, slots)
	}
}

func TestConfigurationsRefused(t *testing.T) {
	for name, c := range map[string]struct{ config, why string }{
		"no limit":          {`{}`, "limit: must be more than 0"},
		"a negative limit":  {`{"limit": -1}`, "limit"},
		"no window":         {`{"limit": 1, "window": 0}`, "window: must be between"},
		"too long a window": {`{"limit": 1, "window": 100000000}`, "window: must be between"},
		"no slots":          {`{"limit": 1, "slots": 0}`, "slots: must be more than 0"},
		"a quoted name":     {`{"limit": 1, "name": "\""}`, "name: must be printable"},
		"an unknown field":  {`{"limit": 1, "per": "hour"}`, `unknown field "per"`},
	} {
		if got := policytest.Refusal(t, newLimiter, c.config); !strings.Contains(got, c.why) {
			t.Errorf("%s: refused with %q, want %q", name, got, c.why)
		}
	}
}
