// Package abi is proxy-wasm 0.2.1 as Go functions: one for each call that a
// plugin may make to its host, under the names and numbers of the
// specification. ABI.md tells what each means.
//
// Built for wasip1 the functions are imports from the host. Built for anything
// else they go to the [Host] that holds the floor, so that plugins are tested
// by plain `go test`.
package abi

// Status is what a host call returns.
type Status uint32

// The statuses that the SDK tells apart.
const (
	OK          Status = 0
	NotFound    Status = 1
	BadArgument Status = 2
	Empty       Status = 7
	CASMismatch Status = 8
	Internal    Status = 10
	Unsupported Status = 12
)

var statusText = [...]string{
	"ok", "not found", "bad argument", "serialization failure", "parse failure", "bad expression",
	"invalid memory access", "empty", "conflict", "result mismatch", "internal failure", "broken connection", "unimplemented",
}

func (s Status) Error() string {
	if int(s) < len(statusText) {
		return "host: " + statusText[s]
	}
	return "host: unknown status"
}

// Err is nil for OK, and the status otherwise.
func (s Status) Err() error {
	if s == OK {
		return nil
	}
	return s
}

// MapType names a header or trailer section.
type MapType uint32

// The sections that the SDK uses.
const (
	RequestHeaders       MapType = 0
	RequestTrailers      MapType = 1
	ResponseHeaders      MapType = 2
	ResponseTrailers     MapType = 3
	GRPCInitialMetadata  MapType = 4
	GRPCTrailingMetadata MapType = 5
	HTTPCallHeaders      MapType = 6
)

// BufferType names a buffer.
type BufferType uint32

// The buffers that the SDK uses.
const (
	RequestBody         BufferType = 0
	ResponseBody        BufferType = 1
	HTTPCallResponse    BufferType = 4
	GRPCMessage         BufferType = 5
	PluginConfiguration BufferType = 7
)

// MetricType is the kind of a metric.
type MetricType uint32

// The kinds of metric.
const (
	Counter MetricType = iota
	Gauge
	Histogram
)

// Bits beside the phases in the argument of weir.phases; ABI.md explains them.
const (
	// PhaseBrief: an exchange may be forgotten when its last phase is over.
	PhaseBrief = 16
	// PhaseLight: actions may bear the flag of light exchanges.
	PhaseLight = 32
	// PhaseIndulgent: a pause on a head is for its body to be shown, and one that
	// nothing can end is none.
	PhaseIndulgent = 64
)

// What a callback returns.
const (
	ActionContinue uint32 = 0
	ActionPause    uint32 = 1
	// ActionWait is a pause on a head, in which the body is kept back.
	ActionWait uint32 = 4
	// ActionPauses is what is in one of the pauses and in nothing else.
	ActionPauses = ActionPause | ActionWait
	// ActionLight is a flag beside them, for hosts that know light exchanges.
	ActionLight uint32 = 256
)
