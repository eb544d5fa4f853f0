package sdk_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// users answers with who asked, and does not know some.
func users(r policytest.Message) (policytest.Message, error) {
	switch path := r.Header.Get(":path"); path {
	case "/down":
		return policytest.Message{}, errors.New("connection refused")
	case "/nobody":
		return policytest.Message{Header: policytest.Fields(":status", "404")}, nil
	default:
		return policytest.Message{Header: policytest.Fields("x-up", r.Header.Get(":method")+" "+r.Header.Get(":authority")+path), Body: "<" + r.Body + ">"}, nil
	}
}

// TestCall: a handler asks a service, and the exchange waits. Once as a context, once
// as an exchange that may be light.
func TestCall(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(r *sdk.Request) sdk.Action
		check func(x policytest.Exchange) bool
	}{
		"its answer": {
			do: func(r *sdk.Request) sdk.Action {
				return r.Call(sdk.Call{Service: "users", Path: "/me", Body: []byte("q")}, func(reply *sdk.Reply) sdk.Action {
					r.Header.Set("x-user", reply.Header.Get("x-up")+" "+string(reply.Body()))
					return sdk.Continue
				})
			},
			check: func(x policytest.Exchange) bool { return x.Request.Header.Get("x-user") == "POST users/me <q>" },
		},
		"an answer to the client": {
			do: func(r *sdk.Request) sdk.Action {
				return r.Call(sdk.Call{Service: "users", Path: "/nobody"}, func(reply *sdk.Reply) sdk.Action {
					return r.Respond(400+reply.Status()/100, nil, nil)
				})
			},
			check: func(x policytest.Exchange) bool { return x.Answered && x.Status() == "404" },
		},
		"no answer": {
			do: func(r *sdk.Request) sdk.Action {
				return r.Call(sdk.Call{Service: "users", Path: "/down"}, func(reply *sdk.Reply) sdk.Action {
					r.Header.Set("x-why", reply.Err.Error())
					return sdk.Continue
				})
			},
			check: func(x policytest.Exchange) bool { return x.Request.Header.Get("x-why") == "connection refused" },
		},
		"a service that is not granted": {
			do: func(r *sdk.Request) sdk.Action {
				return r.Call(sdk.Call{Service: "others"}, func(reply *sdk.Reply) sdk.Action {
					return r.Respond(500, nil, []byte(reply.Err.Error()))
				})
			},
			check: func(x policytest.Exchange) bool { return x.Response.Body == "call service others: host: bad argument" },
		},
		"one after the other": {
			do: func(r *sdk.Request) sdk.Action {
				return r.Call(sdk.Call{Service: "users", Path: "/1"}, func(*sdk.Reply) sdk.Action {
					return r.Call(sdk.Call{Service: "users", Path: "/2"}, func(reply *sdk.Reply) sdk.Action {
						r.Header.Set("x-user", reply.Header.Get("x-up"))
						return sdk.Continue
					})
				})
			},
			check: func(x policytest.Exchange) bool { return x.Request.Header.Get("x-user") == "GET users/2" },
		},
		"for nobody": {
			do: func(r *sdk.Request) sdk.Action {
				if err := sdk.Send(sdk.Call{Service: "users", Timeout: time.Second}, func(reply *sdk.Reply) { sdk.Infof("told %d", reply.Status()) }); err != nil {
					return r.Respond(500, nil, nil)
				}
				return sdk.Continue
			},
			check: func(x policytest.Exchange) bool { return !x.Answered },
		},
	} {
		for _, kind := range []string{"context", "light"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				h := policytest.NewHost()
				h.Service("users", users)
				p := policytest.StartOn(t, h, func(struct{}) (sdk.Handler, error) {
					if kind == "context" {
						return &probe{onRequest: c.do}, nil
					}
					return &lightProbe{c.do}, nil
				}, "")
				for range 2 {
					x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields(":path", "/"), Body: "b"}})
					if !c.check(x) {
						t.Errorf("%+v", x)
					}
				}
				if name == "for nobody" && len(slices.DeleteFunc(h.Logged(), func(l string) bool { return l != "told 200" })) != 2 {
					t.Errorf("log: %q", h.Logged())
				}
			})
		}
	}
}

type lightProbe struct{ do func(*sdk.Request) sdk.Action }

func (p *lightProbe) OnRequest(r *sdk.Request) sdk.Action     { return p.do(r) }
func (p *lightProbe) OnRequestBody(r *sdk.Request) sdk.Action { return sdk.Continue }

// TestCallAtTheEndOfABody: the body is what the answer makes of it.
func TestCallAtTheEndOfABody(t *testing.T) {
	h := policytest.NewHost()
	h.Service("users", users)
	p := policytest.StartOn(t, h, func(struct{}) (sdk.Handler, error) {
		return &probe{
			onRequest: func(*sdk.Request) sdk.Action { return sdk.Hold },
			onRequestBody: func(r *sdk.Request) sdk.Action {
				if !r.End {
					return sdk.Hold
				}
				return r.Call(sdk.Call{Service: "users", Body: r.Body.Bytes()}, func(reply *sdk.Reply) sdk.Action {
					r.Body.Replace(reply.Body())
					return sdk.Continue
				})
			},
		}, nil
	}, "")
	x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields(":path", "/"), Chunks: []string{"a", "b"}}})
	if x.Request.Body != "<ab>" {
		t.Errorf("%+v", x)
	}
}

// TestSendOutsideOfExchanges: when a handler is made, and in its ticks.
func TestSendOutsideOfExchanges(t *testing.T) {
	h := policytest.NewHost()
	h.Service("users", users)
	send := func(path string) {
		err := sdk.Send(sdk.Call{Service: "users", Path: path}, func(reply *sdk.Reply) {
			sdk.Infof("answered %s", reply.Header.Get("x-up"))
		})
		if err != nil {
			sdk.Errorf("%v", err)
		}
	}
	p := policytest.StartOn(t, h, func(struct{}) (sdk.Handler, error) {
		send("/made")
		return &probe{onTick: func() { send("/tick") }}, nil
	}, "")
	p.Tick()
	if got := strings.Join(h.Logged(), ","); got != "answered GET users/made,answered GET users/tick" {
		t.Error(got)
	}
	if err := sdk.Send(sdk.Call{Service: "users"}, nil); err == nil {
		t.Error("there is no handler here")
	}
}
