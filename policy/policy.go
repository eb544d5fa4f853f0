// Package policy is the contract that every policy keeps, native or WASM, and
// the chain that runs them over one exchange.
//
//	Begin, OnRequest ─▶ [OnRequestBody…] ─▶ upstream ─▶ OnResponse ─▶ [OnResponseBody…] ─▶ Close
//	     1 → n               1 → n                         n → 1           n → 1            all
//
// A [Policy] is the use of a plugin under one configuration; it makes filters. A
// [Filter] serves one exchange at a time, from Begin to Close, and then the next.
// It runs on the exchange's own goroutine and may block it, waiting for a call that
// it has made to one of its [Services], until the exchange's deadline.
//
// Who writes the answer: a filter that returns [Respond] has put the whole
// response into Exchange.Response (Exchange.Answer), no later filter sees the
// request, the upstream is not asked. Filters that saw the request still see
// the response, in reverse order, but for the one that made it.
//
// Connections that carry no HTTP have filters of another kind: see
// [ConnectionPolicy] and [Connection].
//
// What failure means: a filter that returns an error has failed, not refused.
// The chain then does what the policy's FailureMode says: CLOSED ends the
// exchange with 500, OPEN goes on as if the filter were not there.
package policy

import (
	"context"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Spec is everything that makes one policy differ from another: two policies
// with equal specs may share their VMs.
type Spec struct {
	// Tenant and Name are the policy's, Plugin the plugin's name.
	Tenant, Name, Plugin string
	// Digest is the module's, "sha256:…".
	Digest string
	// Document is a text that the settings refer to: a contract's.
	Document string
	// Config is JSON; empty when none was given.
	Config      string
	FailureMode weirv1.PolicySpec_FailureMode
	// MemoryBytes and Fuel bound a VM; 0: the host's defaults.
	MemoryBytes, Fuel uint64
	// Native names what the policy is the use of where that is no plugin, such as Firewall.
	// Config is then its settings, a weirv1.Firewall in deterministic encoding.
	Native string
	// StopIteration says what a pause on a head means, as Envoy's option
	// allow_on_headers_stop_iteration does: false, nothing of the message is shown
	// until the plugin continues; true, its body is.
	StopIteration bool
}

// What an Api is the use of, in Spec.Native; Config is a weirv1.ApiSpec.
const (
	Operation = "operation" // says what is called, before all others
	Lifecycle = "lifecycle" // before all but that
	APIKey    = "apiKey"    // says who the Consumer is, where Policies authenticate
	Quota     = "quota"     // holds the Consumer to its Limits, where Policies limit
	Contract  = "contract"  // before Policies transform
)

// Firewall is the web application firewall, in Spec.Native.
const Firewall = "waf"

// EncodeFirewall is what Spec.Config is for these settings.
func EncodeFirewall(f *weirv1.Firewall) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	return string(b), err
}

// Maker makes policies. It is met by policy/wasm's Host, and by policy/waf's.
type Maker interface {
	// Make compiles what must be compiled, starts one instance and configures
	// it, so that a policy that is made also works. Equal specs share what they
	// are made of; each Make is undone by one Policy.Release. The filters of what
	// it returns may ask these services, nil: none; what a policy asks for no
	// exchange goes to those of the newest Make.
	Make(ctx context.Context, spec Spec, services Services) (Policy, error)
}

// Policy is a plugin, or the firewall, under one configuration.
type Policy interface {
	Spec() Spec
	// Phases says which callbacks its filters want; the rest are not called.
	Phases() Phases
	// NewFilter makes a filter. It belongs to who asked for it, and need not be
	// given back: what a filter holds it holds from Begin to Close.
	NewFilter() Filter
	// Release gives up one Make. The last one frees the VMs, once the exchanges
	// in flight are closed; none begins any more.
	Release()
}

// Phases is a set of callbacks.
type Phases uint8

// The callbacks that a filter may want.
const (
	RequestHead Phases = 1 << iota
	RequestBody
	ResponseHead
	ResponseBody
)

// Verdict is what a filter wants done next.
type Verdict uint8

const (
	// Continue: go on to the next filter.
	Continue Verdict = iota
	// Hold: do not pass on what was shown yet. From a head callback: show me
	// the body first. From a body callback: keep the chunk, show me more; the
	// next callback sees all that is kept. At the end of the body Hold means
	// Continue. Who waits for something else than the body does not return.
	Hold
	// Respond: Exchange.Response holds the answer.
	Respond
	// Pass: go on, and show me nothing more of this message: what follows of its
	// body is as it was, and so is its length.
	Pass
)

// Filter sees one exchange, and when that is over another. Its methods are called
// in the order of the package's picture, never at the same time.
type Filter interface {
	// Begin takes up an exchange. After an error it has not: nothing more is
	// called for that exchange, not even Close.
	Begin(x *exchange.Exchange) error
	// OnRequest sees the request's head; end: there is no body.
	OnRequest(x *exchange.Exchange, end bool) (Verdict, error)
	// OnRequestBody sees a chunk and may change it in place or replace it
	// (assign to *chunk); what it leaves is passed on. end: it is the last, and
	// may be empty.
	OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error)
	// OnResponse and OnResponseBody see the answer in the same manner.
	OnResponse(x *exchange.Exchange, end bool) (Verdict, error)
	OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error)
	// Close ends the exchange that was begun, always and exactly once, and gives
	// up what the filter held for it.
	Close(x *exchange.Exchange)
}

// NoBodies is for filters that look at no body, and hold nothing.
type NoBodies struct{}

// Begin implements Filter.
func (NoBodies) Begin(*exchange.Exchange) error { return nil }

// OnRequestBody implements Filter.
func (NoBodies) OnRequestBody(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return Continue, nil
}

// OnResponseBody implements Filter.
func (NoBodies) OnResponseBody(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return Continue, nil
}

// Close implements Filter.
func (NoBodies) Close(*exchange.Exchange) {}
