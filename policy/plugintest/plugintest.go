// Package plugintest is for who writes a plugin: it says what a module is
// ([Inspect]), whether it does what its cases say ([Runner.Run]) and what it
// costs ([Runner.Bench]), with the engine that proxies run it with, and without
// any of the rest of Weir. The module may come from any SDK.
//
//	cases.yaml ─▶ Case ─▶ a policy of its own ─▶ policy.Chain ─▶ Result
//
// # Every run is the same
//
// Each case has a policy, and so a VM, of its own; guests are given the time that
// the case says and random numbers that repeat. So what a case does and the fuel
// that it burns depend on the module and the case alone, and fuel can be
// expected to the unit. Shared data, too, is a case's own.
//
// # What is compared
//
// What a case expects of a head is its changes: a field that was sent and one
// that is expected may stay as they are, but a change that the case does not name
// is a failure. Nothing is compared where a case says nothing, except that a
// failure of the plugin is never expected silently.
package plugintest

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Case is one thing that a plugin is to do.
type Case struct {
	File string
	Line int
	Name string
	// Plugin is the name that the module was pushed under: some hold several plugins,
	// and look at it.
	Plugin string
	// Config is JSON; nil: the policy has none.
	Config json.RawMessage
	// Time is what the plugin's clock shows, and Every how far it goes on between
	// repeated exchanges.
	Time  time.Time
	Every time.Duration
	// Repeat is how many times the exchange happens, at least 1. What is expected
	// is expected of the last.
	Repeat int
	// Client is who asks.
	Client   netip.AddrPort
	Request  Message
	Response Message
	// Connection is there instead of both, for one without HTTP.
	Connection *Connection
	// Calls are those that the plugin makes to services, in their order. It is
	// granted these services, and those in Services.
	Calls    []Call
	Services []string
	// StopIteration is the Plugin's allowOnHeadersStopIteration.
	StopIteration bool
	// Ticks is how many there are before the exchange.
	Ticks  int
	Expect Expectation

	edit edit // where golden fuel goes
}

// Message is a request that is sent, or a response of the service.
type Message struct {
	Method, Scheme, Host, Path string // of a request
	Status                     int    // of a response
	Fields                     []Field
	// Chunks is the body; nil: there is none.
	Chunks   []string
	Trailers []Field
}

// Field is a line of a head.
type Field struct{ Name, Value string }

// Call is a call of the plugin's to a service.
type Call struct {
	Service string
	// Request is what the service is to be asked.
	Request Wanted
	// Response is what it answers. There is none if Error says why, or if it takes too
	// long: Timeout.
	Response Message
	Error    string
	Timeout  bool
}

// Verdict is what a plugin made of an exchange.
type Verdict string

// The verdicts.
const (
	// Continued: the service was asked.
	Continued Verdict = "continue"
	// Answered: the plugin answered in the service's place, or instead of it.
	Answered Verdict = "answer"
	// Failed: it trapped, ran out of fuel or held too much.
	Failed Verdict = "fail"
	// Refused: it refused its configuration, or could not be started.
	Refused Verdict = "refuse"
)

// Expectation is what a case wants to see. What is zero is not looked at.
type Expectation struct {
	Verdict Verdict
	// Error is part of the reason of a failure or a refusal.
	Error string
	// Request is what the service is to get, Response what the client is.
	Request, Response Wanted
	// Log is parts of lines, each of which must have been logged.
	Log []string
	// Fuel is what the last exchange burns, MaxFuel the most that any may.
	Fuel, MaxFuel *uint64
}

// Wanted is what a message is to be.
type Wanted struct {
	Method, Scheme, Host, Path string
	Status                     int
	// Fields are all that the plugin changes, if not nil.
	Fields []WantedField
	// Body is all of it; Contains is parts of it.
	Body     *string
	Contains []string
}

// WantedField is a field and all its values; none: it must not be there.
type WantedField struct {
	Name   string
	Values []string
}

// Failing says that the case wants the plugin to fail.
func (e *Expectation) Failing() bool { return e.Verdict == Failed || e.Verdict == Refused }

// defaultPlugin is what a module is called where the file of cases does not say.
const defaultPlugin = "plugin"

// defaultTime is what the clock shows where a case does not say.
var defaultTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
