// Command stamp is a plugin that puts a header on every answer.
package main

import sdk "github.com/weirmesh/weir/plugins-sdk"

type stamp struct {
	Header string `json:"header"`
	Value  string `json:"value"`
}

func (s *stamp) Default() { s.Header, s.Value = "x-stamp", "weir" }

func (s *stamp) OnResponse(r *sdk.Response) sdk.Action {
	r.Header.Set(s.Header, s.Value)
	return sdk.Continue
}

func init() { sdk.Register(func(s stamp) (sdk.Handler, error) { return &s, nil }) }

func main() {}
