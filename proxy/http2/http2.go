// Package http2 is HTTP/2 on the wire (RFC 9113): frames and header blocks, the
// client's side of a connection to a service ([Client]), and
// the server's side of a connection, which turns each stream into an exchange.
//
//	frames ─▶ Conn.Run (reads) ─▶ stream (one goroutine each) ─▶ Place.Serve
//	                                 ◀─ request body, by windows
//	socket ◀─ whoever writes takes along what others have left ◀─ response
//
// # Promises
//
//   - An exchange behaves as one that came by HTTP/1.1: the same Place serves it,
//     and the same strictness holds for what it is made of.
//   - The reader never waits for the client to read: what it has to say is
//     appended to what is to be written, and written by another goroutine.
//   - Memory is bounded: request bodies by the windows that are given, responses
//     by a page for the whole connection, heads by http1's limits, exchanges by
//     MaxStreams, whatever a client resets.
//   - A client that costs more than it asks for (resets, pings, settings, empty
//     frames, endless heads) is told to calm down, and disconnected.
//   - Finish follows Serve exactly once, and Run returns after the last one.
//
// # Why not x/net/http2
//
// Its server speaks to net/http handlers: two goroutines and some forty
// allocations for each exchange, and every field through a map. Of it only HPACK
// decoding is used. Heads are written without a dynamic table, as nginx does:
// encoding needs no state, so no order and no lock.
package http2

import (
	"fmt"
)

// What is offered to clients.
const (
	MaxStreams   = 250       // exchanges at once on one connection
	streamWindow = 256 << 10 // of a request's body, on its way or not yet read
	connWindow   = 1 << 20   // of all of them
	maxFrame     = 16 << 10  // the least that everyone takes, and the most that is sent
)

// Preface is what a client begins with.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// code is an error code of RFC 9113, section 7.
type code uint32

const (
	codeNone code = iota
	codeProtocol
	codeInternal
	codeFlowControl
	codeSettingsTimeout
	codeStreamClosed
	codeFrameSize
	codeRefused
	codeCancel
	codeCompression
	codeConnect
	codeCalm
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"}

func (c code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("error %d", uint32(c))
}

// connError ends a connection.
type connError struct {
	code   code
	reason string
}

func (e *connError) Error() string { return e.code.String() + ": " + e.reason }

// streamError ends a stream.
type streamError struct {
	stream uint32
	code   code
	reason string
}

func (e *streamError) Error() string { return e.code.String() + ": " + e.reason }
