// Package http3 is HTTP/3 on the wire (RFC 9114) over quic-go's streams: frames
// and field sections (RFC 9204), the server's side of a connection, which turns
// each stream into an exchange, and the client's, which carries exchanges to a
// service.
//
//	quic.Stream ─▶ stream (one goroutine each) ─▶ Place.Serve
//	     ▲  └─ DATA, as it is asked for ─▶ request body
//	     └──── HEADERS, DATA ◀─ response
//	lane (upstream.Lane) ─▶ quic.Stream of a Client (upstream.Conn)
//
// # Promises
//
//   - An exchange behaves as one that came by HTTP/1.1: the same Place serves it,
//     and the same strictness holds for what it is made of.
//   - Memory is bounded: request bodies by QUIC's windows and one page, responses
//     by one page and a packet, heads by http1's limits, exchanges by MaxStreams,
//     whatever a client resets.
//   - A stream that waits for its answer holds no buffer.
//   - A client that costs more than it asks for (resets, empty and unknown frames,
//     streams of no use) is disconnected.
//   - Finish follows Serve exactly once, and Run returns after the last one.
//
// # No dynamic table, no push, no 0-RTT
//
// Neither side keeps a dynamic table: a section needs nothing but itself, so no
// stream waits for another. A server that offers none may be sent none. Early
// data is not accepted, since whoever has seen it can send it again.
package http3

import (
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weirmesh/weir/proxy/http1"
)

// Protocol is what HTTP/3 is called when a handshake agrees on it.
const Protocol = "h3"

// What is offered to clients.
const (
	MaxStreams    = 250       // exchanges at once on one connection
	maxUniStreams = 16        // three of use, the rest for what is not known yet
	streamWindow  = 256 << 10 // of a request's body, to begin with
	connWindow    = 512 << 10 // of all of them
	maxStream     = 1 << 20   // where a client is far away and its bodies are read
	maxConn       = 4 << 20
	maxSection    = http1.MaxHead
)

// QUIC is how a server of HTTP/3 speaks QUIC. Idle is how long a client that says
// nothing is taken to be there, handshake how long it may take to say who it is.
func QUIC(idle, handshake time.Duration) *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1, quic.Version2},
		HandshakeIdleTimeout:           handshake / 2, // the whole of it may take twice that
		MaxIdleTimeout:                 idle,
		KeepAlivePeriod:                idle / 3, // an exchange may be silent for longer; what is idle is closed by us
		MaxIncomingStreams:             MaxStreams,
		MaxIncomingUniStreams:          maxUniStreams,
		RequireStreamCreditRelease:     true, // a reset gives no room before its exchange has ended
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         maxStream,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     maxConn,
	}
}

// code is an error code of RFC 9114, section 8.1, or RFC 9204, section 6.
type code uint64

const (
	codeNone code = 0x100 + iota
	codeProtocol
	codeInternal
	codeStreamCreation
	codeClosedCritical
	codeFrameUnexpected
	codeFrame
	codeExcessiveLoad
	codeID
	codeSettings
	codeMissingSettings
	codeRejected
	codeCancelled
	codeIncomplete
	codeMessage
)

const (
	codeDecompression code = 0x200 + iota
	codeEncoderStream
	codeDecoderStream
)

var codeNames = map[code]string{
	codeNone: "H3_NO_ERROR", codeProtocol: "H3_GENERAL_PROTOCOL_ERROR", codeInternal: "H3_INTERNAL_ERROR",
	codeStreamCreation: "H3_STREAM_CREATION_ERROR", codeClosedCritical: "H3_CLOSED_CRITICAL_STREAM",
	codeFrameUnexpected: "H3_FRAME_UNEXPECTED", codeFrame: "H3_FRAME_ERROR", codeExcessiveLoad: "H3_EXCESSIVE_LOAD",
	codeID: "H3_ID_ERROR", codeSettings: "H3_SETTINGS_ERROR", codeMissingSettings: "H3_MISSING_SETTINGS",
	codeRejected: "H3_REQUEST_REJECTED", codeCancelled: "H3_REQUEST_CANCELLED", codeIncomplete: "H3_REQUEST_INCOMPLETE",
	codeMessage: "H3_MESSAGE_ERROR", codeDecompression: "QPACK_DECOMPRESSION_FAILED",
	codeEncoderStream: "QPACK_ENCODER_STREAM_ERROR", codeDecoderStream: "QPACK_DECODER_STREAM_ERROR",
}

func (c code) String() string {
	if name := codeNames[c]; name != "" {
		return name
	}
	return fmt.Sprintf("error %#x", uint64(c))
}

// connError ends a connection.
type connError struct {
	code   code
	reason string
}

func (e *connError) Error() string { return e.code.String() + ": " + e.reason }

// streamError ends a stream.
type streamError struct {
	code   code
	reason string
}

func (e *streamError) Error() string { return e.code.String() + ": " + e.reason }
