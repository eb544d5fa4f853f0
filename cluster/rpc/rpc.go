// Package rpc carries calls between members: many at a time over one stream,
// each with its own deadline and its own end.
//
//	client: call(id, method, timeout, payload) ─▶ server: handler in a goroutine
//	client: cancel(id)                         ─▶ server: the handler's context ends
//	client  ◀─ answer(id, code, payload)
//	ping ─▶ ◀─ pong, all the time: an end that hears nothing for long gives up
//
// # Promise
//
// An error of [Client.Call] that is [ErrNotSent] says that the other side has
// seen nothing of the call. After any other it may have been done.
package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

var (
	// ErrNotSent: the other side has seen nothing of the call.
	ErrNotSent = errors.New("call was not sent")
	// ErrBroken: the stream ended before the answer came.
	ErrBroken = errors.New("stream broke during the call")
)

// Busy is the code of an answer to a call that was not looked at, as too many
// are under way.
const Busy = 255

const (
	// MaxPayload bounds what a call or an answer carries.
	MaxPayload = 18 << 20
	maxFrame   = MaxPayload + frameHead + callHead
	// maxCalls bounds the calls of one stream that are under way at the server.
	maxCalls = 512
)

type frameKind byte

const (
	frameCall frameKind = 1 + iota
	frameAnswer
	frameCancel
	framePing
	framePong
)

const (
	lengthSize = 4
	frameHead  = 1 + 8 // kind and id
	callHead   = 1 + 4 // method or code, and the timeout in milliseconds
)

// frame is what travels. Method is a call's method or an answer's code.
type frame struct {
	kind    frameKind
	id      uint64
	method  byte
	timeout time.Duration // 0: none
	payload []byte
}

func appendFrame(b []byte, f frame) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(f.kind))
	b = binary.BigEndian.AppendUint64(b, f.id)
	switch f.kind {
	case frameCall:
		b = append(b, f.method)
		b = binary.BigEndian.AppendUint32(b, milliseconds(f.timeout))
		b = append(b, f.payload...)
	case frameAnswer:
		b = append(append(b, f.method), f.payload...)
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-lengthSize))
	return b
}

// milliseconds rounds up, so that a deadline that is near is not none.
func milliseconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min((d+time.Millisecond-1)/time.Millisecond, 1<<32-1))
}

func decodeFrame(b []byte) (frame, error) {
	if len(b) < frameHead {
		return frame{}, errors.New("read frame: it is cut short")
	}
	f := frame{kind: frameKind(b[0]), id: binary.BigEndian.Uint64(b[1:])}
	b = b[frameHead:]
	switch {
	case f.kind == frameCall && len(b) >= callHead:
		f.method = b[0]
		f.timeout = time.Duration(binary.BigEndian.Uint32(b[1:])) * time.Millisecond
		f.payload = b[callHead:]
	case f.kind == frameAnswer && len(b) >= 1:
		f.method, f.payload = b[0], b[1:]
	case f.kind >= frameCancel && f.kind <= framePong && len(b) == 0:
	default:
		return frame{}, fmt.Errorf("read frame of kind %d: it makes no sense", f.kind)
	}
	return f, nil
}

// readFrame reads one frame. A payload is taken in steps, so that a length
// alone does not make memory.
func readFrame(r *bufio.Reader) (frame, error) {
	var head [lengthSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return frame{}, fmt.Errorf("read frame: %d bytes are too many", size)
	}
	const step = 256 << 10
	body := make([]byte, 0, min(size, step))
	for uint32(len(body)) < size {
		from := len(body)
		body = append(body, make([]byte, min(size-uint32(from), step))...)
		if _, err := io.ReadFull(r, body[from:]); err != nil {
			return frame{}, err
		}
	}
	return decodeFrame(body)
}

// writer sends frames one after the other, by whoever has one.
type writer struct {
	turn  chan struct{} // holds one while somebody writes
	conn  net.Conn
	stall time.Duration
	buf   []byte
}

func newWriter(conn net.Conn, stall time.Duration) writer {
	return writer{turn: make(chan struct{}, 1), conn: conn, stall: stall}
}

func (w *writer) write(f frame) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	w.buf = appendFrame(w.buf[:0], f)
	// In parts, each with its own deadline: a large frame on a slow line is not
	// a stalled one.
	for b := w.buf; len(b) > 0; {
		part := b[:min(len(b), 64<<10)]
		_ = w.conn.SetWriteDeadline(time.Now().Add(w.stall))
		n, err := w.conn.Write(part)
		if b = b[n:]; err != nil {
			// A part of a frame may be out: nothing can follow it.
			_ = w.conn.Close()
			if len(b) == 0 {
				break // all of it may be
			}
			return err
		}
	}
	if cap(w.buf) > 1<<20 {
		w.buf = nil
	}
	return nil
}

// patient is a reader that gives up when nothing comes for long.
type patient struct {
	conn  net.Conn
	stall time.Duration
}

func (p patient) Read(b []byte) (int, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(p.stall))
	return p.conn.Read(b)
}
