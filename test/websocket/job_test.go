package websocket

import (
	"encoding/binary"
	"fmt"
)

// job is one conversation, as a client peer reads it: a line of JSON on its
// standard input. It does the steps one after the other, waits for the end, and
// answers with an outcome. It waits a minute for whatever it waits for, and then
// says that it is stuck.
//
// The URL's path ends with what the server is to do with a message: echo says it
// again, raw writes it to the connection past the library (in pieces of chop
// bytes, if the query says so), die resets the connection.
type job struct {
	ID        string   `json:"id"`
	URL       string   `json:"url"`
	CA        string   `json:"ca,omitempty"`        // a file: who vouches for the edge
	HTTP2     bool     `json:"http2,omitempty"`     // by an extended CONNECT (RFC 8441)
	Protocols []string `json:"protocols,omitempty"` // servers speak chat.v2
	Deflate   string   `json:"deflate,omitempty"`   // takeover, no-takeover, window
	Steps     []step   `json:"steps"`
}

// step is a thing to do:
//
//	text, binary   send data, or a pattern of size bytes, count times
//	raw            write data past the library, in pieces of chop bytes
//	ping           send a ping and wait for its pong
//	hear           wait for count messages since the beginning
//	wait           say nothing for ms milliseconds
//	close          begin the closing handshake, with a code and data for a reason
//	fin            end what this side sends, and no more
//	die            reset the connection
type step struct {
	Do    string `json:"do"`
	Data  []byte `json:"data,omitempty"`
	Size  int    `json:"size,omitempty"`
	Count int    `json:"count,omitempty"`
	Chop  int    `json:"chop,omitempty"`
	MS    int    `json:"ms,omitempty"`
	Code  int    `json:"code,omitempty"`

	frames []frame // what raw writes, masked for a server, bare for a client
}

// outcome is what a peer tells of a conversation, and a server peer's first word.
type outcome struct {
	Listening string `json:"listening,omitempty"`

	ID         string   `json:"id"`
	Status     int      `json:"status"` // of an answer that is not 101
	Protocol   string   `json:"protocol"`
	Extensions string   `json:"extensions"`
	Heard      []string `json:"heard"` // "text 5 2cf24dba5fb0": kind, size, hash
	Pongs      int      `json:"pongs"`
	Code       int      `json:"code"` // of the end; 1005 for a close frame without, 1006 for none
	Reason     string   `json:"reason"`
	Stuck      string   `json:"stuck"`
}

// frame is one as RFC 6455 section 5.2 has it.
type frame struct {
	more    bool // no FIN
	rsv     byte // of 7
	opcode  byte
	payload []byte
}

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

func (f frame) append(b []byte, masked bool) []byte {
	first := f.rsv<<4 | f.opcode
	if !f.more {
		first |= 0x80
	}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	b = append(b, first)
	switch n := len(f.payload); {
	case n <= 125:
		b = append(b, mask|byte(n))
	case n <= 65535:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !masked {
		return append(b, f.payload...)
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	for i, c := range f.payload {
		b = append(b, c^key[i%4])
	}
	return b
}

func encode(frames []frame, masked bool) (b []byte) {
	for _, f := range frames {
		b = f.append(b, masked)
	}
	return b
}

// pattern is what peers fill a message with.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = "0123456789abcdef"[i%16]
	}
	return b
}

func text(size int) string { return told(opText, pattern(size)) }
func blob(size int) string { return told(opBinary, pattern(size)) }

// closing is a close frame's payload.
func closing(code int, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

func told(opcode byte, data []byte) string {
	kind := "binary"
	if opcode == opText {
		kind = "text"
	}
	return fmt.Sprintf("%s %d %s", kind, len(data), hashOf(data))
}
