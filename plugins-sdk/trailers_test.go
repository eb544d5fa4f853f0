package sdk_test

import (
	"fmt"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// noted is what a handler has seen.
type noted struct{ seen string }

func (n *noted) saw() string { return n.seen }

// summed looks at both bodies, holds them to their ends, and puts what it saw into the
// trailers, both ways.
type summed struct{ noted }

func (h *summed) OnRequestBody(r *sdk.Request) sdk.Action {
	h.seen += fmt.Sprintf("body %q %v; ", r.Body.Bytes(), r.End)
	if !r.End {
		return sdk.Hold
	}
	r.Body.Replace([]byte(strings.ToUpper(string(r.Body.Bytes()))))
	return sdk.Continue
}

func (h *summed) OnRequestTrailers(r *sdk.Request) sdk.Action {
	h.seen += "trailers " + r.Trailers.Get("x-sum") + "; "
	r.Trailers.Set("x-sum", "checked")
	r.Trailers.Del("x-secret")
	r.Trailers.Add("x-more", "1")
	return sdk.Continue
}

// watcher lets bodies pass, and asks a service about the trailers of the response.
type watcher struct{ noted }

func (h *watcher) OnResponseBody(r *sdk.Response) sdk.Action {
	h.seen += fmt.Sprintf("body %q %v; ", r.Body.Bytes(), r.End)
	if r.End {
		r.Body.Replace([]byte("."))
		return r.Call(sdk.Call{Service: "users"}, func(*sdk.Reply) sdk.Action { h.seen += "answer; "; return sdk.Continue })
	}
	return sdk.Continue
}

func (h *watcher) OnResponseTrailers(r *sdk.Response) sdk.Action {
	h.seen += "trailers " + r.Trailers.Get("grpc-status") + "; "
	return r.Call(sdk.Call{Service: "users", Path: "/" + r.Trailers.Get("grpc-status")}, func(reply *sdk.Reply) sdk.Action {
		r.Trailers.Set("x-user", reply.Header.Get("x-up"))
		return sdk.Continue
	})
}

// plain has a method for the body and none for trailers.
type plain struct{ noted }

func (h *plain) OnRequestBody(r *sdk.Request) sdk.Action {
	h.seen += fmt.Sprintf("body %q %v; ", r.Body.Bytes(), r.End)
	return sdk.Continue
}

// only has a method for trailers and none for the body.
type only struct{ noted }

func (h *only) OnRequestTrailers(r *sdk.Request) sdk.Action {
	h.seen += "trailers " + r.Trailers.Get("x-sum") + "; "
	return sdk.Continue
}

// TestTrailers: they come after the end of the body, where there are some, and can be
// changed; a handler without a method for them sees the body end as ever.
func TestTrailers(t *testing.T) {
	trailers := policytest.Fields("x-sum", "7", "x-secret", "s")
	for _, c := range []struct {
		name, seen, body, trailers string
		handler                    sdk.Handler
		message                    policytest.Message
		response                   bool
	}{
		{name: "held and changed", handler: &summed{}, message: policytest.Message{Chunks: []string{"ab", "cd"}, Trailers: trailers},
			seen: `body "ab" false; body "abcd" false; body "abcd" true; trailers 7; `, body: "ABCD", trailers: "x-sum=checked x-more=1"},
		{name: "without trailers", handler: &summed{}, message: policytest.Message{Chunks: []string{"ab", "cd"}},
			seen: `body "ab" false; body "abcd" true; `, body: "ABCD"},
		{name: "trailers alone", handler: &summed{}, message: policytest.Message{Trailers: trailers},
			seen: `body "" false; body "" true; trailers 7; `, trailers: "x-sum=checked x-more=1"},
		{name: "a call at the end of the body, and one at the trailers", handler: &watcher{}, response: true,
			message: policytest.Message{Chunks: []string{"ab", "cd"}, Trailers: policytest.Fields("grpc-status", "0")},
			seen:    `body "ab" false; body "cd" false; body "" true; answer; trailers 0; `, body: "abcd.", trailers: "grpc-status=0 x-user=GET users/0"},
		{name: "a body's method alone", handler: &plain{}, message: policytest.Message{Chunks: []string{"ab", "cd"}, Trailers: trailers},
			seen: `body "ab" false; body "cd" true; `, body: "abcd", trailers: "x-sum=7 x-secret=s"},
		{name: "a trailers' method alone", handler: &only{}, message: policytest.Message{Chunks: []string{"ab"}, Trailers: trailers},
			seen: "trailers 7; ", body: "ab", trailers: "x-sum=7 x-secret=s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policytest.Start(t, func(struct{}) (sdk.Handler, error) { return c.handler, nil }, "")
			p.Host().Service("users", users)
			for range 2 { // the second is no other
				x := policytest.Exchange{Request: c.message}
				if c.response {
					x = policytest.Exchange{Response: c.message}
				}
				x = p.Do(x)
				got := x.Request
				if c.response {
					got = x.Response
				}
				var fields []string
				for _, f := range got.Trailers {
					fields = append(fields, f.Name+"="+f.Value)
				}
				if got.Body != c.body || strings.Join(fields, " ") != c.trailers {
					t.Errorf("body %q, trailers %q; want %q, %q", got.Body, fields, c.body, c.trailers)
				}
			}
			if saw := c.handler.(interface{ saw() string }).saw(); saw != c.seen+c.seen {
				t.Errorf("seen\n%s, want twice\n%s", saw, c.seen)
			}
		})
	}
}
