// Package websocket lets clients and servers that other people wrote speak
// WebSocket with each other, through an edge and without one. What they make of
// it must be the same.
//
//	client ──────────▶ server      what each heard, and how it ended
//	client ─▶ edge ─▶ server       the same
//
// # Peers
//
// Each is a program of its own, client and server: coder/websocket (Go; always
// there), Python's websockets as Debian has it, and ws from npm. All keep one
// contract (see job and outcome): a server says again what it hears, or writes
// what it hears to its connection as it is; a client takes jobs, a line of JSON
// each. Both tell what they heard.
//
// # Cases
//
// They follow the Autobahn suite's list, and its numbers: framing, pings,
// reserved bits, opcodes, fragments, UTF-8, closing, large messages, compression.
// What no library would send, one side writes past its library, so that the
// other has to judge it: each such case is run towards the server and towards
// the client.
//
// # What is required
//
//   - Client and server tell the same with an edge between them as without:
//     every message, in order, whole; pongs; sub-protocol and extensions; the
//     code and the reason of the end.
//   - It is what the case says, with all peers that can.
//   - When one side dies, or leaves half of the conversation, the other hears.
//
// # Running
//
// go test uses the peers that are installed: each client does each small case
// once, with a server and by a way that -seed draws. make websocket installs the
// peers and runs every case with every server in every way.
package websocket
