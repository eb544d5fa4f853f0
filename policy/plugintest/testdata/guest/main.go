// Command guest is a plugin that does what the header x-do tells it.
package main

import (
	"errors"
	"strings"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

type config struct {
	Stamp string `json:"stamp"`
	Limit int    `json:"limit"`
	Ticks bool   `json:"ticks"`
}

func (c *config) Default() { c.Stamp = "yes" }

func (c *config) Validate() error {
	if c.Limit < 0 {
		return errors.New("limit is negative")
	}
	return nil
}

type guest struct {
	config
	served int
}

func (g *guest) OnRequest(r *sdk.Request) sdk.Action {
	g.served++
	switch r.Header.Get("x-do") {
	case "panic":
		fail("as told")
	case "spin":
		for {
			g.served++
		}
	case "refuse":
		return r.Refuse(sdk.Problem{Status: 401, Type: "urn:weir:problem:unauthenticated", Title: "No"}, sdk.Field{Name: "www-authenticate", Value: "Test"})
	case "ask", "ask twice":
		return g.ask(r)
	case "tell":
		if err := sdk.Send(sdk.Call{Service: "audit", Body: []byte("seen")}, nil); err != nil {
			return r.Respond(500, nil, nil)
		}
	case "log":
		sdk.Infof("served %d at %s", g.served, sdk.Now().UTC().Format("15:04:05"))
	}
	if g.Limit > 0 && g.served > g.Limit {
		return r.Respond(429, nil, []byte("enough"))
	}
	r.Header.Del("x-do")
	r.Header.Set("x-stamp", g.Stamp)
	r.Header.Del("content-length")
	return sdk.Continue
}

// ask lets those in whom the service users knows.
func (g *guest) ask(r *sdk.Request) sdk.Action {
	call := sdk.Call{Service: "users", Path: "/me", Header: []sdk.Field{{Name: "x-key", Value: r.Header.Get("x-key")}}, Timeout: time.Second}
	return r.Call(call, func(reply *sdk.Reply) sdk.Action {
		switch {
		case reply.Err != nil:
			return r.Respond(503, nil, []byte(reply.Err.Error()))
		case reply.Status() == 307 && r.Header.Get("x-do") == "ask twice":
			return r.Call(sdk.Call{Service: "users", Path: reply.Header.Get("location")}, func(reply *sdk.Reply) sdk.Action {
				r.Header.Set("x-user", string(reply.Body()))
				return sdk.Continue
			})
		case reply.Status() != 200:
			return r.Respond(403, nil, nil)
		}
		r.Header.Set("x-user", string(reply.Body()))
		return sdk.Continue
	})
}

// OnTick asks how many there are.
func (g *guest) OnTick() {
	err := sdk.Send(sdk.Call{Service: "users", Path: "/count"}, func(reply *sdk.Reply) { sdk.Infof("there are %s", reply.Body()) })
	if err != nil {
		sdk.Errorf("%v", err)
	}
}

func (g *guest) OnRequestBody(r *sdk.Request) sdk.Action {
	if !r.End {
		return sdk.Hold
	}
	r.Body.Replace([]byte(strings.ToUpper(string(r.Body.Bytes()))))
	return sdk.Continue
}

func (g *guest) OnResponse(r *sdk.Response) sdk.Action {
	r.Header.Set("x-stamped", g.Stamp)
	return sdk.Continue
}

//go:noinline
func fail(why string) { panic(why) }

func init() {
	sdk.Register(func(c config) (sdk.Handler, error) {
		if c.Ticks {
			sdk.SetTick(time.Second)
		}
		return &guest{config: c}, nil
	})
}

func main() {}
