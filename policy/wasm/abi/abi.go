// Package abi is proxy-wasm's vocabulary: the numbers that host and guest agree
// on, and how lists of headers travel in memory. It is pure.
//
// Versions 0.1.0, 0.2.0, 0.2.1 and Higress's 0.2.100 share the numbers; where they
// part, the host says so.
package abi

import (
	"fmt"
	"strings"
)

// Status is what a host function returns. SDKs trap on one that they do not
// expect, so the choice among them is part of the contract.
type Status uint32

// The statuses.
const (
	OK                   Status = 0
	NotFound             Status = 1
	BadArgument          Status = 2
	SerializationFailure Status = 3
	ParseFailure         Status = 4
	InvalidMemoryAccess  Status = 6
	Empty                Status = 7
	CASMismatch          Status = 8
	InternalFailure      Status = 10
	Unimplemented        Status = 12
)

// Action is what a callback on a head or a body returns.
type Action uint32

// The actions. On a head Envoy tells three pauses apart: Pause, PauseAll, which keeps
// the body back, too, and the same within the limits of a buffer. Any other number
// is taken for Pause.
const (
	Continue          Action = 0
	Pause             Action = 1
	PauseAll          Action = 3
	PauseAllWatermark Action = 4
)

// Light is a flag beside an action, from guests that have announced it: the guest
// keeps nothing of the exchange, which is no longer a context of its VM. It counts
// beside Continue, and beside whatever is returned after an answer.
const Light Action = 256

// From EditShift on an action has the number of an edit, 0 if there is none, from
// guests that have given the host edits; MostPlain is the largest without one.
const (
	EditShift        = 16
	MostPlain Action = 1<<EditShift - 1
)

// Level is the level of a line of the log.
type Level uint32

// The levels.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
	Critical
)

// Buffer names a piece of bytes that the host holds.
type Buffer uint32

// The buffers.
const (
	RequestBody         Buffer = 0
	ResponseBody        Buffer = 1
	DownstreamData      Buffer = 2
	UpstreamData        Buffer = 3
	HTTPCallResponse    Buffer = 4
	GRPCMessage         Buffer = 5
	VMConfiguration     Buffer = 6
	PluginConfiguration Buffer = 7
	ForeignArguments    Buffer = 8
	RedisCallResponse   Buffer = 9 // Higress's
)

// Map names a list of headers that the host holds.
type Map uint32

// The maps.
const (
	RequestHeaders   Map = 0
	RequestTrailers  Map = 1
	ResponseHeaders  Map = 2
	ResponseTrailers Map = 3
	// The rest are the answers to calls that the guest made.
	GRPCInitialMetadata  Map = 4
	GRPCTrailingMetadata Map = 5
	HTTPCallHeaders      Map = 6
	HTTPCallTrailers     Map = 7
)

// Metric is a kind of metric.
type Metric uint32

// The kinds.
const (
	Counter   Metric = 0
	Gauge     Metric = 1
	Histogram Metric = 2
)

// String is as Prometheus writes it.
func (m Metric) String() string {
	switch m {
	case Counter:
		return "counter"
	case Gauge:
		return "gauge"
	case Histogram:
		return "histogram"
	}
	return fmt.Sprintf("metric %d", uint32(m))
}

// Stream names one direction of an exchange or a connection, for continue_stream.
type Stream uint32

// The streams.
const (
	RequestStream  Stream = 0
	ResponseStream Stream = 1
	// Of connections that carry no HTTP.
	DownstreamStream Stream = 2
	UpstreamStream   Stream = 3
)

// Version is a version of the ABI, as a module's exports announce it.
type Version string

// The versions that are served.
const (
	V010   Version = "0.1.0"
	V020   Version = "0.2.0"
	V021   Version = "0.2.1"
	V02100 Version = "0.2.100" // Higress
)

// Marker is the export that announces a version.
func (v Version) Marker() string {
	return "proxy_abi_version_" + strings.ReplaceAll(string(v), ".", "_")
}
