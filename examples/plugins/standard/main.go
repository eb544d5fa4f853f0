// Command standard is the standard policies, in one module: a stock Go module has
// some three megabytes of its own, and what ten policies add to it is little. Which of
// them a policy is decides the name of its Plugin.
//
//	weir plugin push jwt standard.wasm          # a Plugin of the policy jwt
//	weir plugin push jwt-partners standard.wasm # another one, with limits of its own
package main

import (
	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/apikey"
	"github.com/weirmesh/weir/examples/plugins/standard/basicauth"
	"github.com/weirmesh/weir/examples/plugins/standard/introspection"
	"github.com/weirmesh/weir/examples/plugins/standard/ipfilter"
	"github.com/weirmesh/weir/examples/plugins/standard/jwt"
	"github.com/weirmesh/weir/examples/plugins/standard/ratelimit"
	"github.com/weirmesh/weir/examples/plugins/standard/signature"
	"github.com/weirmesh/weir/examples/plugins/standard/sizelimit"
	"github.com/weirmesh/weir/examples/plugins/standard/transform"
)

func init() {
	sdk.RegisterNamed(map[string]sdk.Plugin{
		"apikey":        apikey.Plugin(),
		"basicauth":     basicauth.Plugin(),
		"introspection": introspection.Plugin(),
		"ipfilter":      ipfilter.Plugin(),
		"jwt":           jwt.Plugin(),
		"ratelimit":     ratelimit.Plugin(),
		"signature":     signature.Plugin(),
		"sizelimit":     sizelimit.Plugin(),
		"transform":     transform.Plugin(),
	})
}

func main() {}
