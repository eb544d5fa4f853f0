// Package sdk is what a plugin is written with: a thin Go layer over
// proxy-wasm 0.2.1. A plugin is an ordinary `package main`, built by stock Go:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o stamp.wasm .
//
// It registers one function in its init (main is not run in a sandbox). The
// function makes a [Handler] from the policy's configuration, once for each
// policy that uses the plugin; the handler's methods then see every exchange:
//
//	policy's config ─▶ new(Config) ─▶ Handler ─▶ OnRequest ─▶ OnRequestBody… ─▶ OnResponse ─▶ OnResponseBody… ─▶ OnDone
//	                     once                      └──────────────────── once for each exchange ───────────────────┘
//
// # What to rely on
//
// A sandbox is single-threaded: no method runs while another does, so a handler
// needs no locks. There are several sandboxes of a policy in one proxy, so what
// must be seen by all of them lives in the host: see [GetShared].
//
// Strings and byte slices that the SDK returns belong to the plugin and never
// change. A header's value shares a chunk of 4 KiB with its neighbours: clone
// what you keep for long.
//
// A *Request or *Response is good until the method returns. So is the [Exchange]
// inside, unless you keep something of it, which is to put it into its State: then
// it stays the same until OnDone returns. Hosts that know of it are told when State
// is nil, and need no sandbox for the exchange until the next method is due, which
// may see it in another one.
//
// # What it costs
//
// A handler that reads and writes headers costs about a microsecond. Computing
// is ten times slower than outside: encoding/json, regexp and crypto are for
// construction, or for hosts that do them for you ([Foreign]).
package sdk

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Handler is a policy at work. It implements any of [RequestHandler],
// [RequestBodyHandler], [RequestTrailersHandler], [ResponseHandler],
// [ResponseBodyHandler], [ResponseTrailersHandler], [DoneHandler], [TickHandler] and
// [QueueHandler]; the rest is not called.
type Handler any

// RequestHandler sees the head of each request.
type RequestHandler interface {
	OnRequest(r *Request) Action
}

// RequestBodyHandler sees each request's body as it comes: r.Body is the chunk
// that just arrived, or all that was held so far.
type RequestBodyHandler interface {
	OnRequestBody(r *Request) Action
}

// ResponseHandler sees the head of each response.
type ResponseHandler interface {
	OnResponse(r *Response) Action
}

// ResponseBodyHandler sees each response's body as it comes.
type ResponseBodyHandler interface {
	OnResponseBody(r *Response) Action
}

// DoneHandler is told when an exchange is over, however it ended.
type DoneHandler interface {
	OnDone(x *Exchange)
}

// TickHandler is called once per period; see [SetTick].
type TickHandler interface {
	OnTick()
}

// Action is what a method wants done next.
type Action uint32

const (
	// Continue passes on what was seen.
	Continue Action = 0
	// Hold keeps it back. From the head's method: until the body's method,
	// which is called next, says Continue. From the body's method: the next call
	// sees this chunk and the following ones together. At the end of the body
	// Hold means Continue. To wait for something else there is [Request.Call].
	Hold Action = 1
)

// Plugin makes handlers from configurations; see [Define].
type Plugin struct {
	make   func(config []byte) (Handler, error)
	schema func() []byte
}

// Define says how a policy's configuration becomes a handler. The
// configuration is JSON and is decoded into C, in this order:
//
//  1. C's zero value; when *C has a method Default(), that is called;
//  2. the JSON, where a field that C does not have is an error;
//  3. when C or *C has a method Validate() error, that must return nil.
//
// A handler is not made, and the policy refused, when one of them fails.
//
// People see C as a JSON schema (`weir describe plugin NAME`): its fields by their
// names, with what Default gives them, what a tag `about:"…"` says of them, and the
// values that a tag `oneof:"a,b"` lists.
func Define[C any](new func(config C) (Handler, error)) Plugin {
	return Plugin{
		make: func(config []byte) (Handler, error) {
			c, err := decode[C](config)
			if err != nil {
				return nil, err
			}
			return new(c)
		},
		schema: schemaOf[C],
	}
}

// Register makes the program this plugin. Call it once, from init.
func Register[C any](new func(config C) (Handler, error)) {
	register(Define(new))
}

// RegisterNamed makes the program several plugins at once: which of them a policy is
// decides the name that its Plugin was pushed under (in other hosts, the plugin's root
// id). A name may go on behind a dash: "jwt-partners" is "jwt". Call it once, from
// init, instead of Register. A module that holds ten plugins is compiled once, and is
// not much larger than one.
func RegisterNamed(plugins map[string]Plugin) {
	register(Plugin{
		make: func(config []byte) (Handler, error) {
			if p, ok := named(plugins, ownName()); ok {
				return p.make(config)
			}
			names := slices.Sorted(maps.Keys(plugins))
			return nil, fmt.Errorf("the module has no plugin %q: push it as one of %s", ownName(), strings.Join(names, ", "))
		},
		schema: func() []byte {
			if p, ok := named(plugins, ownName()); ok {
				return p.schema()
			}
			return nil
		},
	})
}

func named(plugins map[string]Plugin, name string) (Plugin, bool) {
	for {
		if p, ok := plugins[name]; ok {
			return p, true
		}
		dash := strings.LastIndexByte(name, '-')
		if dash < 0 {
			return Plugin{}, false
		}
		name = name[:dash]
	}
}

func ownName() string {
	for _, path := range [...]string{"weir\x00plugin", "plugin_root_id"} {
		if name, s := abi.GetProperty(path); s == abi.OK && name != "" {
			return name
		}
	}
	return ""
}
