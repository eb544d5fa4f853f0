package http2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/weirmesh/weir/proxy/upstream"
)

// handle takes in one frame. Its error is a *connError or a *streamError. The
// caller holds the lock.
func (c *Client) handle(f *frame) error {
	if c.block.open && (f.kind != frameContinuation || f.stream != c.block.of) {
		return &connError{codeProtocol, "a head is interrupted"}
	}
	switch f.kind {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case frameContinuation:
		if !c.block.open {
			return &connError{codeProtocol, "CONTINUATION of nothing"}
		}
		return c.blockPart(f)
	case frameReset:
		return c.reset(f)
	case frameSettings:
		return asError(c.settings(f))
	case framePing:
		return asError(c.pinged(f))
	case frameWindow:
		return c.window(f)
	case frameGoAway:
		return asError(c.goAway(f))
	case framePush:
		return &connError{codeProtocol, "it pushes, which it may not"}
	case framePriority:
		if f.stream == 0 {
			return &connError{codeProtocol, "PRIORITY is the connection's"}
		}
	}
	return nil // of a kind that is not known, or that asks for nothing
}

// resetLane tells the service that a stream has come to a bad end.
func (c *Client) resetLane(e *streamError) {
	c.out.set(appendReset(c.out.bytes(), e.stream, e.code))
	if l := c.lanes[e.stream]; l != nil {
		l.resetByUs = true
		l.kill(e)
	}
}

func (c *Client) settings(f *frame) *connError {
	switch {
	case f.stream != 0:
		return &connError{codeProtocol, "SETTINGS are a stream's"}
	case f.has(flagAck) && len(f.payload) != 0 || len(f.payload)%settingSize != 0:
		return &connError{codeFrameSize, "SETTINGS are of a wrong length"}
	case f.has(flagAck):
		if !c.greeted {
			return &connError{codeProtocol, "the first frame acknowledges SETTINGS"}
		}
		return nil
	}
	room := int64(maxLanes)
	if c.greeted {
		room = c.room.Load()
	}
	for p := f.payload; len(p) > 0; p = p[settingSize:] {
		s := readSetting(p)
		if err := s.check(); err != nil {
			return err
		}
		switch s.id {
		case settingPush:
			if s.value != 0 {
				return &connError{codeProtocol, "it lets us push"}
			}
		case settingStreams:
			room = min(int64(s.value), maxLanes)
		case settingWindow:
			if err := c.changeWindow(int64(s.value)); err != nil {
				return err
			}
		case settingTableSize:
			c.out.tableOwed = true
		}
	}
	c.greeted = true
	if !c.closing && c.goneWhy == nil {
		c.room.Store(room)
	}
	c.out.set(appendHeader(c.out.bytes(), 0, frameSettings, flagAck, 0))
	return nil
}

// changeWindow applies a new initial window to the streams that are open.
func (c *Client) changeWindow(to int64) *connError {
	by := to - c.peerWindow
	c.peerWindow = to
	for _, l := range c.lanes {
		if l.sendWindow += by; l.sendWindow > maxWindow {
			return &connError{codeFlowControl, "a stream's window grows too large"}
		}
		c.wake(l)
	}
	return nil
}

func (c *Client) pinged(f *frame) *connError {
	switch {
	case f.stream != 0:
		return &connError{codeProtocol, "PING is a stream's"}
	case len(f.payload) != 8:
		return &connError{codeFrameSize, "PING is of a wrong length"}
	case !f.has(flagAck):
		c.out.set(appendPing(c.out.bytes(), flagAck, f.payload))
	}
	return nil
}

func (c *Client) window(f *frame) error {
	if len(f.payload) != 4 {
		return &connError{codeFrameSize, "WINDOW_UPDATE is of a wrong length"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	if f.stream == 0 {
		if n == 0 {
			return &connError{codeProtocol, "a window grows by nothing"}
		}
		if c.sendWindow += n; c.sendWindow > maxWindow {
			return &connError{codeFlowControl, "the window grows too large"}
		}
		if c.out.waiting > 0 {
			c.wakeAll()
		}
		return nil
	}
	if c.isIdle(f.stream) {
		return &connError{codeProtocol, "WINDOW_UPDATE for a stream that is not open"}
	}
	l := c.lanes[f.stream]
	if l == nil || l.dead != nil {
		return nil
	}
	if n == 0 {
		return &streamError{f.stream, codeProtocol, "a window grows by nothing"}
	}
	if l.sendWindow += n; l.sendWindow > maxWindow {
		return &streamError{f.stream, codeFlowControl, "the window grows too large"}
	}
	c.wake(l)
	return nil
}

// isIdle: the stream was never opened.
func (c *Client) isIdle(id uint32) bool { return id >= c.next || id%2 == 0 }

// goAway: the service takes no more streams, and has not looked at those above
// the one it names.
func (c *Client) goAway(f *frame) *connError {
	if f.stream != 0 || len(f.payload) < 8 {
		return &connError{codeProtocol, "GOAWAY is malformed"}
	}
	last := binary.BigEndian.Uint32(f.payload) & lastStream
	why := code(binary.BigEndian.Uint32(f.payload[4:]))
	if c.goneWhy != nil && last > c.goneLast {
		return &connError{codeProtocol, "GOAWAY takes back what another has said"}
	}
	c.goneLast, c.goneWhy = last, fmt.Errorf("it takes no more requests on this connection (%s)", why)
	c.room.Store(0)
	for _, l := range c.lanes {
		if l.id > last {
			l.refused = true
			l.kill(c.goneWhy)
		}
	}
	c.settle()
	return nil
}

func (c *Client) reset(f *frame) error {
	switch {
	case len(f.payload) != 4:
		return &connError{codeFrameSize, "RST_STREAM is of a wrong length"}
	case f.stream == 0 || c.isIdle(f.stream):
		return &connError{codeProtocol, "RST_STREAM for a stream that is not open"}
	}
	l := c.lanes[f.stream]
	if l == nil || l.dead != nil {
		return nil
	}
	why := code(binary.BigEndian.Uint32(f.payload))
	l.refused = why == codeRefused && !l.headed
	l.isReset = true
	if l.ended { // it wants no more of the request, and has answered it
		l.unwanted = true
		l.cond.Broadcast()
		return nil
	}
	l.kill(fmt.Errorf("it has reset the stream (%s)", why))
	return nil
}

func (c *Client) data(f *frame) error {
	size := len(f.payload) // padding counts, too
	if f.stream == 0 || c.isIdle(f.stream) {
		return &connError{codeProtocol, "DATA for a stream that is not open"}
	}
	if err := f.unpad(); err != nil {
		return err
	}
	if c.recvWindow -= int64(size); c.recvWindow < 0 {
		return &connError{codeFlowControl, "more is sent than the window holds"}
	}
	l := c.lanes[f.stream]
	if l == nil || l.dead != nil {
		c.giveBack(size) // it did not know that yet
		return nil
	}
	if err := l.take(f, size); err != nil {
		c.giveBack(size)
		return err
	}
	return nil
}

// giveBack lets the service send n bytes more, of all streams together.
func (c *Client) giveBack(n int) {
	if c.credit += n; c.credit >= laneWindow && c.out.err == nil && !c.out.closed {
		c.out.set(appendWindow(c.out.bytes(), 0, c.credit))
		c.recvWindow += int64(c.credit)
		c.credit = 0
	}
}

// take adds to the answer's body.
func (l *lane) take(f *frame, size int) error {
	n := int64(len(f.payload))
	switch l.recvWindow -= int64(size); {
	case !l.headed:
		return &streamError{l.id, codeProtocol, "a body without a head"}
	case l.ended:
		return &streamError{l.id, codeStreamClosed, "DATA behind the end of the answer"}
	case l.recvWindow < 0:
		return &streamError{l.id, codeFlowControl, "more is sent than the window holds"}
	case l.bodyless && n > 0:
		return &streamError{l.id, codeProtocol, "a body where there must be none"}
	case l.left >= 0 && n > l.left:
		return &streamError{l.id, codeProtocol, "the body is longer than its Content-Length"}
	case f.has(flagEndStream) && l.left > n && !l.bodyless:
		return &streamError{l.id, codeProtocol, "the body is shorter than its Content-Length"}
	}
	if l.left >= 0 && !l.bodyless {
		l.left -= n
	}
	l.pending = append(l.pending, f.payload...)
	if f.has(flagEndStream) {
		l.ended = true
	}
	l.giveBack(size - len(f.payload)) // the padding is read
	l.conn.wake(l)
	return nil
}

func (c *Client) headers(f *frame) error {
	if f.stream == 0 || c.isIdle(f.stream) {
		return &connError{codeProtocol, "HEADERS for a stream that is not open"}
	}
	if err := f.unpad(); err != nil {
		return err
	}
	if f.has(flagPriority) {
		if len(f.payload) < priorityFields {
			return &connError{codeFrameSize, "HEADERS have no room for their priority"}
		}
		f.payload = f.payload[priorityFields:]
	}
	c.block.of, c.block.ends = f.stream, f.has(flagEndStream)
	l := c.lanes[f.stream]
	switch {
	case l == nil || l.dead != nil:
		c.block.begin(nil, false)
	case l.ended:
		return &connError{codeStreamClosed, "HEADERS behind the end of the answer"}
	case l.headed:
		c.block.begin(&l.answer, true)
	default:
		l.answer.reset()
		c.block.begin(&l.answer, false)
	}
	return c.blockPart(f)
}

// blockPart takes in a part of a header block, and what it means with the last.
func (c *Client) blockPart(f *frame) error {
	last := f.has(flagEndHeaders)
	if err := c.block.add(f.payload, last); err != nil {
		return err
	}
	l := c.lanes[f.stream]
	if !last || l == nil || c.block.into == nil {
		return nil
	}
	if err := c.block.finish(); err != nil {
		return &streamError{l.id, codeProtocol, err.Error()}
	}
	return l.headEnded(c.block.trailing, c.block.ends)
}

// headEnded: a head, or the trailers, are whole.
func (l *lane) headEnded(trailing, ends bool) error {
	c := l.conn
	switch status := l.answer.status; {
	case trailing:
		if l.left > 0 && !l.bodyless {
			return &streamError{l.id, codeProtocol, "the body is shorter than its Content-Length"}
		}
		l.trailing = l.answer.trailers.Len() > 0
	case status < 200:
		if len(l.interim) < maxInterim {
			l.interim = append(l.interim, l.answer)
			l.answer = answer{}
		}
		c.wake(l)
		return nil
	default:
		l.headed, c.answered = true, true
		l.bodyless = l.asksHead || status == 204 || status == 304
		l.left = l.answer.length
		if ends && l.left > 0 && !l.bodyless {
			return &streamError{l.id, codeProtocol, "there is no body, where a length is announced"}
		}
	}
	l.ended = ends
	c.wake(l)
	return nil
}

// isEnd: the service has closed the connection, politely or not.
func isEnd(err error) bool {
	var sys *os.SyscallError
	return err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &sys)
}

var _ upstream.Dial = Dial
