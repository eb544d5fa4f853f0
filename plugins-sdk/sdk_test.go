package sdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// probe is a handler made of functions.
type probe struct {
	onRequest      func(*sdk.Request) sdk.Action
	onRequestBody  func(*sdk.Request) sdk.Action
	onResponse     func(*sdk.Response) sdk.Action
	onResponseBody func(*sdk.Response) sdk.Action
	onDone         func(*sdk.Exchange)
	onTick         func()
}

func (p *probe) OnRequest(r *sdk.Request) sdk.Action { return act(p.onRequest, r) }

func (p *probe) OnRequestBody(r *sdk.Request) sdk.Action { return act(p.onRequestBody, r) }

func (p *probe) OnResponse(r *sdk.Response) sdk.Action { return act(p.onResponse, r) }

func (p *probe) OnResponseBody(r *sdk.Response) sdk.Action { return act(p.onResponseBody, r) }

func (p *probe) OnDone(x *sdk.Exchange) {
	if p.onDone != nil {
		p.onDone(x)
	}
}

func (p *probe) OnTick() {
	if p.onTick != nil {
		p.onTick()
	}
}

func act[M any](f func(M) sdk.Action, m M) sdk.Action {
	if f == nil {
		return sdk.Continue
	}
	return f(m)
}

func start(t *testing.T, p *probe) *policytest.Policy {
	t.Helper()
	return policytest.Start(t, func(struct{}) (sdk.Handler, error) { return p, nil }, "")
}

func TestHeaders(t *testing.T) {
	p := start(t, &probe{onRequest: func(r *sdk.Request) sdk.Action {
		r.Header.Set("x-all", strings.Join(slices.Collect(func(yield func(string) bool) {
			for name, value := range r.Header.All() {
				if !yield(name + "=" + value) {
					return
				}
			}
		}), " "))
		if _, ok := r.Header.Lookup("x-empty"); !ok {
			t.Error("an empty field is not found")
		}
		if _, ok := r.Header.Lookup("x-none"); ok || r.Header.Get("x-none") != "" {
			t.Error("a missing field is found")
		}
		r.Header.Del("x-a")
		r.Header.Del("x-none")
		r.Header.Set("X-B", "5")
		r.Header.Add("x-b", "6")
		r.Header.Set(":path", r.Path()+"&more")
		return sdk.Continue
	}})
	x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields(
		":method", "GET", ":path", "/?q", "x-a", "1", "x-a", "2", "x-b", "3", "X-B", "4", "x-empty", "")}})
	want := policytest.Fields(":method", "GET", ":path", "/?q&more", "x-b", "5", "x-empty", "",
		"x-all", ":method=GET :path=/?q x-a=1 x-a=2 x-b=3 X-B=4 x-empty=", "x-b", "6")
	if !slices.Equal(x.Request.Header, want) {
		t.Errorf("got  %v\nwant %v", x.Request.Header, want)
	}
	if logged := p.Host().Logged(); len(logged) != 0 {
		t.Errorf("logged %q", logged)
	}
}

func TestAHeadThatIsGoneIsNotChangedSilently(t *testing.T) {
	p := start(t, &probe{onResponse: func(r *sdk.Response) sdk.Action {
		sdk.Header{}.Set("x-late", "1") // The zero Header is the request's.
		return sdk.Continue
	}})
	x := p.Do(policytest.Exchange{})
	if len(x.Request.Header) != 0 || len(p.Host().Logged()) != 1 {
		t.Errorf("the request's head is %v, and was logged %q", x.Request.Header, p.Host().Logged())
	}
}

func TestPseudoFields(t *testing.T) {
	p := start(t, &probe{
		onRequest: func(r *sdk.Request) sdk.Action {
			if got := fmt.Sprint(r.Method(), " ", r.Scheme(), " ", r.Authority(), " ", r.Path(), " ", r.ClientAddress()); got != "PUT https a:1 /b?c 192.0.2.1:9" {
				t.Errorf("the request is %s", got)
			}
			return sdk.Continue
		},
		onResponse: func(r *sdk.Response) sdk.Action {
			r.SetStatus(r.Status() + 1)
			return sdk.Continue
		},
	})
	x := p.Do(policytest.Exchange{
		Request:    policytest.Message{Header: policytest.Fields(":method", "PUT", ":scheme", "https", ":authority", "a:1", ":path", "/b?c")},
		Response:   policytest.Message{Header: policytest.Fields(":status", "201")},
		Properties: map[string]string{"source.address": "192.0.2.1:9"},
	})
	if x.Status() != "202" {
		t.Errorf("the status is %s", x.Status())
	}
}

func TestBodies(t *testing.T) {
	for _, c := range []struct {
		name   string
		handle func(b *sdk.Body, end bool) sdk.Action
		want   string
		// calls are the sizes that the handler was shown.
		calls string
	}{
		{"passing on", func(*sdk.Body, bool) sdk.Action { return sdk.Continue }, "one, two, three", "5 5 5 "},
		{"holding shows all that was held", func(*sdk.Body, bool) sdk.Action { return sdk.Hold }, "one, two, three", "5 10 15 "},
		{"replacing each chunk", func(b *sdk.Body, _ bool) sdk.Action {
			b.Replace([]byte(strings.ToUpper(string(b.Bytes()))))
			return sdk.Continue
		}, "ONE, TWO, THREE", "5 5 5 "},
		{"replacing the whole", func(b *sdk.Body, end bool) sdk.Action {
			if end {
				b.Replace([]byte(fmt.Sprintf("%d bytes", len(b.Bytes()))))
			}
			return sdk.Hold
		}, "15 bytes", "5 10 15 "},
		{"emptying", func(b *sdk.Body, _ bool) sdk.Action { b.Replace(nil); return sdk.Continue }, "", "5 5 5 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var requests, responses strings.Builder
			p := start(t, &probe{
				onRequestBody: func(r *sdk.Request) sdk.Action {
					fmt.Fprintf(&requests, "%d ", r.Body.Len())
					return c.handle(&r.Body, r.End)
				},
				onResponseBody: func(r *sdk.Response) sdk.Action {
					fmt.Fprintf(&responses, "%d ", r.Body.Len())
					return c.handle(&r.Body, r.End)
				},
			})
			sent := policytest.Message{Chunks: []string{"one, ", "two, ", "three"}}
			x := p.Do(policytest.Exchange{Request: sent, Response: sent})
			if x.Request.Body != c.want || x.Response.Body != c.want {
				t.Errorf("the request is %q, the response %q, want %q", x.Request.Body, x.Response.Body, c.want)
			}
			if requests.String() != c.calls || responses.String() != c.calls {
				t.Errorf("shown %q and %q, want %q", &requests, &responses, c.calls)
			}
		})
	}
}

func TestHoldKeepsTheHeadOpen(t *testing.T) {
	p := start(t, &probe{
		onResponse: func(*sdk.Response) sdk.Action { return sdk.Hold },
		onResponseBody: func(r *sdk.Response) sdk.Action {
			if !r.End {
				return sdk.Hold
			}
			r.Header.Set("content-length", fmt.Sprint(r.Body.Len()))
			return sdk.Continue
		},
	})
	x := p.Do(policytest.Exchange{Response: policytest.Message{Chunks: []string{"a", "b"}}})
	if got := x.Response.Header.Get("content-length"); got != "2" {
		t.Errorf("content-length is %q", got)
	}
}

func TestEnd(t *testing.T) {
	var ends []bool
	note := func(r *sdk.Request) sdk.Action { ends = append(ends, r.End); return sdk.Continue }
	p := start(t, &probe{onRequest: note, onRequestBody: note})
	p.Do(policytest.Exchange{})
	p.Do(policytest.Exchange{Request: policytest.Message{Chunks: []string{"a", "b"}}})
	if want := []bool{true, false, false, true}; !slices.Equal(ends, want) {
		t.Errorf("ends were %v, want %v", ends, want)
	}
}

func TestRespond(t *testing.T) {
	done := 0
	p := start(t, &probe{
		onRequest: func(r *sdk.Request) sdk.Action {
			return r.Respond(418, []sdk.Field{{Name: "x-pot", Value: "tea"}, {Name: "x-empty"}}, []byte("short and stout"))
		},
		onRequestBody: func(*sdk.Request) sdk.Action { t.Error("the body of an answered request is seen"); return sdk.Continue },
		onResponse:    func(*sdk.Response) sdk.Action { t.Error("the policy's own answer is seen"); return sdk.Continue },
		onDone:        func(*sdk.Exchange) { done++ },
	})
	for range 2 { // The second exchange must not begin as answered.
		x := p.Do(policytest.Exchange{Request: policytest.Message{Body: "leaves"}})
		want := policytest.Fields(":status", "418", "x-pot", "tea", "x-empty", "")
		if !x.Answered || x.Response.Body != "short and stout" || !slices.Equal(x.Response.Header, want) {
			t.Errorf("answered %v with %v %q", x.Answered, x.Response.Header, x.Response.Body)
		}
	}
	if done != 2 {
		t.Errorf("OnDone was called %d times, want 2", done)
	}
}

func TestRefuse(t *testing.T) {
	nasty := "a \"quoted\" \\ line\nbreak, \x01, ü, \xff and \u2028"
	p := start(t, &probe{onRequest: func(r *sdk.Request) sdk.Action {
		return r.Refuse(sdk.Problem{Status: 403, Type: "urn:shop:no", Title: "No", Detail: nasty}, sdk.Field{Name: "x-a", Value: "1"})
	}})
	x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-request-id", "r")}})
	var got map[string]any
	if err := json.Unmarshal([]byte(x.Response.Body), &got); err != nil {
		t.Fatalf("%v in %s", err, x.Response.Body)
	}
	want := map[string]any{"type": "urn:shop:no", "title": "No", "status": 403.0, "detail": strings.ToValidUTF8(nasty, "\ufffd"), "requestId": "r"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if x.Response.Header.Get("content-type") != "application/problem+json" || x.Response.Header.Get("x-a") != "1" {
		t.Errorf("the head is %v", x.Response.Header)
	}
	if x.Details != "no" {
		t.Errorf("the access log says %q", x.Details)
	}
}

func TestRefuseWithoutAType(t *testing.T) {
	p := start(t, &probe{onRequest: func(r *sdk.Request) sdk.Action { return r.Refuse(sdk.Problem{Status: 403}) }})
	x := p.Do(policytest.Exchange{Properties: map[string]string{"request.id": "p"}})
	if want := `{"type":"about:blank","title":"","status":403,"requestId":"p"}` + "\n"; x.Response.Body != want || x.Details != "" {
		t.Errorf("got %s and the word %q", x.Response.Body, x.Details)
	}
}

func TestStateIsTheExchangesOwn(t *testing.T) {
	p := start(t, &probe{
		onRequest: func(r *sdk.Request) sdk.Action {
			if r.State != nil {
				t.Errorf("an exchange begins with the state %v", r.State)
			}
			r.State = r.Path()
			return sdk.Continue
		},
		onResponse: func(r *sdk.Response) sdk.Action {
			r.Header.Set("x-path", r.State.(string))
			return sdk.Continue
		},
	})
	for _, path := range []string{"/a", "/b"} {
		x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields(":path", path)}})
		if got := x.Response.Header.Get("x-path"); got != path {
			t.Errorf("%s: the response sees %s", path, got)
		}
	}
}

func TestTick(t *testing.T) {
	ticks := 0
	p := policytest.Start(t, func(struct{}) (sdk.Handler, error) {
		sdk.SetTick(1500 * time.Microsecond)
		return &probe{onTick: func() { ticks++ }}, nil
	}, "")
	p.Tick()
	p.Tick()
	if ticks != 2 || p.Host().TickPeriod() != 2*time.Millisecond {
		t.Errorf("%d ticks of %v", ticks, p.Host().TickPeriod())
	}
}

func TestSharedData(t *testing.T) {
	p := start(t, &probe{onRequest: func(*sdk.Request) sdk.Action {
		value, version, err := sdk.GetShared("k")
		if value != nil || version != sdk.Absent || err != nil {
			t.Errorf("a missing key gives %q, %d, %v", value, version, err)
		}
		if err := sdk.SetShared("k", []byte("1"), version); err != nil {
			t.Error(err)
		}
		if err := sdk.SetShared("k", []byte("2"), version); !errors.Is(err, sdk.ErrConflict) {
			t.Errorf("a second first write gives %v", err)
		}
		value, version, _ = sdk.GetShared("k")
		if err := sdk.SetShared("k", append(value, '3'), version); err != nil {
			t.Error(err)
		}
		if err := sdk.SetShared("k", nil, version); !errors.Is(err, sdk.ErrConflict) {
			t.Errorf("a write of an old version gives %v", err)
		}
		if err := sdk.UpdateShared("k", func(old []byte) []byte { return append(old, '4') }); err != nil {
			t.Error(err)
		}
		if value, _, _ := sdk.GetShared("k"); string(value) != "134" {
			t.Errorf("the value is %q", value)
		}
		if err := sdk.SetShared("k", []byte("x"), sdk.Always); err != nil {
			t.Error(err)
		}
		return sdk.Continue
	}})
	p.Do(policytest.Exchange{})
}

func TestUpdateSharedGivesUp(t *testing.T) {
	p := start(t, &probe{onRequest: func(*sdk.Request) sdk.Action {
		if err := sdk.UpdateShared("k", func([]byte) []byte { return nil }); !errors.Is(err, sdk.ErrConflict) {
			t.Errorf("got %v", err)
		}
		return sdk.Continue
	}})
	p.Host().Conflict(1_000)
	p.Do(policytest.Exchange{})
}

func TestMetrics(t *testing.T) {
	p := start(t, &probe{onRequest: func(*sdk.Request) sdk.Action {
		c, err1 := sdk.NewCounter("c")
		again, err2 := sdk.NewCounter("c")
		g, err3 := sdk.NewGauge("g")
		h, err4 := sdk.NewHistogram("h")
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		c.Add(2)
		again.Add(3)
		g.Set(10)
		g.Add(-4)
		h.Record(7)
		if c.Value() != 5 || g.Value() != 6 {
			t.Errorf("the counter is %d, the gauge %d", c.Value(), g.Value())
		}
		return sdk.Continue
	}})
	p.Do(policytest.Exchange{})
	if got := p.Host().Metric("h"); got != 7 {
		t.Errorf("the histogram got %d", got)
	}
}

func TestForeign(t *testing.T) {
	p := start(t, &probe{onRequest: func(*sdk.Request) sdk.Action {
		if got, err := sdk.Foreign("echo", []byte("x")); string(got) != "xx" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := sdk.Foreign("nothing", nil); err == nil || err.Error() != "call nothing: host: not found" {
			t.Errorf("an unknown function gives %v", err)
		}
		return sdk.Continue
	}})
	p.Host().Foreign("echo", func(args []byte) ([]byte, error) { return append(args, args...), nil })
	p.Do(policytest.Exchange{})
}

func TestPropertiesAndClock(t *testing.T) {
	p := start(t, &probe{onRequest: func(r *sdk.Request) sdk.Action {
		if got, ok := r.Property("a", "b"); got != "1" || !ok {
			t.Errorf("a.b is %q, %v", got, ok)
		}
		if _, ok := r.Property("none"); ok {
			t.Error("a missing property is found")
		}
		if err := sdk.SetProperty("2", "mine", "own"); err != nil {
			t.Error(err)
		}
		if got, _ := r.Property("mine", "own"); got != "2" {
			t.Errorf("mine.own is %q", got)
		}
		if got := sdk.Now().UTC().Format(time.RFC3339); got != "2026-01-01T00:00:01Z" {
			t.Errorf("it is %s", got)
		}
		return sdk.Continue
	}})
	p.Host().Advance(time.Second)
	p.Do(policytest.Exchange{Properties: map[string]string{"a.b": "1"}})
}
