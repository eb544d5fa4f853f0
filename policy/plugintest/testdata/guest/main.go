// Command guest is a plugin that does what the header x-do tells it.
package main

import (
	"errors"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

type config struct {
	Stamp string `json:"stamp"`
	Limit int    `json:"limit"`
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
	sdk.Register(func(c config) (sdk.Handler, error) { return &guest{config: c}, nil })
}

func main() {}
