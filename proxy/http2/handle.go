package http2

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/section"
)

const maxHeaderList = http1.MaxHead

// handle takes in one frame. Its error is a *connError or a *streamError.
func (c *Conn) handle(f *frame) error {
	if c.block.open && (f.kind != frameContinuation || f.stream != c.blockOf) {
		return &connError{codeProtocol, "a head is interrupted"}
	}
	if !c.greeted && (f.kind != frameSettings || f.has(flagAck)) {
		return &connError{codeProtocol, "the first frame is no SETTINGS"}
	}
	switch f.kind {
	case frameData:
		return c.data(f)
	case frameHeaders:
		return c.headers(f)
	case frameContinuation:
		return c.continuation(f)
	case framePriority:
		return c.priority(f)
	case frameReset:
		return c.reset(f)
	case frameSettings:
		return asError(c.settings(f))
	case framePing:
		return asError(c.ping(f))
	case frameWindow:
		return c.window(f)
	case frameGoAway:
		if f.stream != 0 || len(f.payload) < 8 {
			return &connError{codeProtocol, "GOAWAY is malformed"}
		}
		return asError(c.guard.cost(1))
	case framePush:
		return &connError{codeProtocol, "a client does not push"}
	}
	return asError(c.guard.cost(1)) // of a kind that is not known
}

// asError keeps a nil a nil.
func asError(e *connError) error {
	if e == nil {
		return nil
	}
	return e
}

// resetStream tells the client that a stream has come to a bad end.
func (c *Conn) resetStream(e *streamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.out.pending()
	c.out.set(appendReset(c.out.bytes(), e.stream, e.code))
	if s := c.streams[e.stream]; s != nil {
		s.resetByUs = true
		s.kill(e)
	} else {
		c.past.add(e.stream, true)
	}
	if err := c.out.noteControl(before); err != nil {
		return err
	}
	return asError(c.guard.cost(1))
}

func (c *Conn) settings(f *frame) *connError {
	switch {
	case f.stream != 0:
		return &connError{codeProtocol, "SETTINGS are a stream's"}
	case f.has(flagAck) && len(f.payload) != 0 || len(f.payload)%settingSize != 0:
		return &connError{codeFrameSize, "SETTINGS are of a wrong length"}
	case f.has(flagAck):
		c.acked = true
		return c.guard.cost(1)
	}
	c.greeted = true
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := f.payload; len(p) > 0; p = p[settingSize:] {
		s := readSetting(p)
		if err := s.check(); err != nil {
			return err
		}
		switch s.id {
		case settingWindow:
			if err := c.changeWindow(int64(s.value)); err != nil {
				return err
			}
		case settingTableSize:
			c.out.tableOwed = true
		}
	}
	before := c.out.pending()
	c.out.set(appendHeader(c.out.bytes(), 0, frameSettings, flagAck, 0))
	if err := c.out.noteControl(before); err != nil {
		return err
	}
	return c.guard.cost(1 + len(f.payload)/settingSize)
}

// changeWindow applies a new initial window to the streams that are open.
func (c *Conn) changeWindow(to int64) *connError {
	by := to - c.peerWindow
	c.peerWindow = to
	for _, s := range c.streams {
		if s.sendWindow += by; s.sendWindow > maxWindow {
			return &connError{codeFlowControl, "a stream's window grows too large"}
		}
		s.cond.Broadcast()
	}
	return nil
}

func (c *Conn) ping(f *frame) *connError {
	switch {
	case f.stream != 0:
		return &connError{codeProtocol, "PING is a stream's"}
	case len(f.payload) != 8:
		return &connError{codeFrameSize, "PING is of a wrong length"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagAck) {
		if bytes.Equal(f.payload, drainPing) {
			c.tellLast()
		}
		return c.guard.cost(1)
	}
	before := c.out.pending()
	c.out.set(appendPing(c.out.bytes(), flagAck, f.payload))
	if err := c.out.noteControl(before); err != nil {
		return err
	}
	return c.echoCost()
}

func (c *Conn) window(f *frame) error {
	if len(f.payload) != 4 {
		return &connError{codeFrameSize, "WINDOW_UPDATE is of a wrong length"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	c.mu.Lock()
	defer c.mu.Unlock()
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
		return asError(c.echoCost())
	}
	if c.isIdle(f.stream) {
		return &connError{codeProtocol, "WINDOW_UPDATE for a stream that is not open"}
	}
	if n == 0 {
		return &streamError{f.stream, codeProtocol, "a window grows by nothing"}
	}
	if s := c.streams[f.stream]; s != nil && s.dead == nil {
		if s.sendWindow += n; s.sendWindow > maxWindow {
			return &streamError{f.stream, codeFlowControl, "the window grows too large"}
		}
		s.cond.Broadcast()
	}
	return asError(c.echoCost())
}

// echoCost: clients may well give a window for every few kilobytes that they
// get, and measure the way by a ping with each answer, as gRPC's do. The caller
// holds the lock.
func (c *Conn) echoCost() *connError {
	c.guard.earn(echoesPerFrame * c.productive)
	c.productive = 0
	return c.guard.echo()
}

const echoesPerFrame = 16

// isIdle: the stream was never opened.
func (c *Conn) isIdle(id uint32) bool { return id > c.last || id%2 == 0 }

func (c *Conn) priority(f *frame) error {
	switch {
	case f.stream == 0:
		return &connError{codeProtocol, "PRIORITY is the connection's"}
	case len(f.payload) != priorityFields:
		return &streamError{f.stream, codeFrameSize, "PRIORITY is of a wrong length"}
	case dependsOn(f.payload) == f.stream:
		return &streamError{f.stream, codeProtocol, "a stream depends on itself"}
	}
	return asError(c.guard.cost(1))
}

func dependsOn(b []byte) uint32 { return binary.BigEndian.Uint32(b) & lastStream }

func (c *Conn) reset(f *frame) error {
	switch {
	case len(f.payload) != 4:
		return &connError{codeFrameSize, "RST_STREAM is of a wrong length"}
	case f.stream == 0 || c.isIdle(f.stream):
		return &connError{codeProtocol, "RST_STREAM for a stream that is not open"}
	}
	c.mu.Lock()
	if s := c.streams[f.stream]; s != nil {
		s.kill(errClientLeft)
	}
	c.mu.Unlock()
	return asError(c.guard.cost(resetCost))
}

// resetCost is a reset's: it undoes a request that had its price.
const resetCost = 4

func (c *Conn) data(f *frame) error {
	size := len(f.payload) // padding counts, too
	if f.stream == 0 || c.isIdle(f.stream) {
		return &connError{codeProtocol, "DATA for a stream that is not open"}
	}
	if err := f.unpad(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recvWindow -= int64(size); c.recvWindow < 0 {
		return &connError{codeFlowControl, "more is sent than the window holds"}
	}
	s := c.streams[f.stream]
	if s == nil || s.dead != nil {
		c.creditConn(size)
		return c.late(f.stream, s)
	}
	if err := s.take(f, size); err != nil {
		c.creditConn(size)
		return err
	}
	if size == 0 && !f.has(flagEndStream) {
		return asError(c.guard.cost(1))
	}
	return nil
}

// late is what becomes of a frame for a stream that is closed. A client that was
// not told so long ago has done nothing wrong.
func (c *Conn) late(id uint32, s *stream) error {
	if s != nil && s.resetByUs {
		return asError(c.guard.cost(1))
	}
	if known, ours := c.past.find(id); known && ours {
		return asError(c.guard.cost(1))
	}
	return &streamError{id, codeStreamClosed, "the stream is closed"}
}

// take adds to the stream's body. The caller holds the lock.
func (s *stream) take(f *frame, size int) error {
	n := int64(len(f.payload))
	switch s.recvWindow -= int64(size); {
	case s.ended:
		return &streamError{s.id, codeStreamClosed, "DATA behind the end of the request"}
	case s.recvWindow < 0:
		return &streamError{s.id, codeFlowControl, "more is sent than the window holds"}
	case s.declared >= 0 && n > s.declared:
		return &streamError{s.id, codeProtocol, "the body is longer than its Content-Length"}
	case f.has(flagEndStream) && s.declared > n:
		return &streamError{s.id, codeProtocol, "the body is shorter than its Content-Length"}
	}
	if s.declared >= 0 {
		s.declared -= n
	}
	s.pending = append(s.pending, f.payload...)
	s.ended = f.has(flagEndStream)
	s.giveBack(size - len(f.payload)) // the padding is read
	s.cond.Broadcast()
	return nil
}

func (c *Conn) headers(f *frame) error {
	if f.stream%2 == 0 {
		return &connError{codeProtocol, "HEADERS for a stream that no client opens"}
	}
	if err := f.unpad(); err != nil {
		return err
	}
	c.blockEnds, c.blockOf, c.blockBad = f.has(flagEndStream), f.stream, nil
	if f.has(flagPriority) {
		if len(f.payload) < priorityFields {
			return &connError{codeFrameSize, "HEADERS have no room for their priority"}
		}
		if dependsOn(f.payload) == f.stream {
			c.blockBad = &streamError{f.stream, codeProtocol, "a stream depends on itself"}
		}
		f.payload = f.payload[priorityFields:]
	}
	if err := c.beginBlock(f.stream); err != nil {
		return err
	}
	return c.blockPart(f)
}

// beginBlock decides what becomes of the block that begins: a request's head, its
// trailers, or nothing.
func (c *Conn) beginBlock(id uint32) error {
	c.opening, c.trailed = nil, nil
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return c.beginTrailers(s)
	}
	if id <= c.last {
		known, ours := c.past.find(id)
		switch {
		case ours:
			c.block.begin(nil, nil)
			return nil
		case known:
			return &connError{codeStreamClosed, "HEADERS for a stream that is closed"}
		}
		return &connError{codeProtocol, "a stream is opened out of order"}
	}
	c.last = id
	switch {
	case id > c.lastAllowed:
		c.block.begin(nil, nil) // it was told that nothing more is served
	case len(c.streams) >= MaxStreams:
		c.blockBad = &streamError{id, codeRefused, "there are too many streams"}
		c.block.begin(nil, nil)
	default:
		c.open(id)
	}
	return nil
}

func (c *Conn) beginTrailers(s *stream) error {
	switch {
	case s.dead != nil && s.resetByUs:
		c.block.begin(nil, nil)
		return nil
	case s.ended || s.dead != nil:
		return &connError{codeStreamClosed, "HEADERS behind the end of the request"}
	}
	if !c.blockEnds {
		c.blockBad = &streamError{s.id, codeProtocol, "trailers do not end the request"}
	}
	c.trailed = s
	c.block.begin(nil, &s.incoming)
	return nil
}

// open makes a stream whose head is being read.
func (c *Conn) open(id uint32) {
	s := &stream{conn: c, id: id, place: c.cfg.Take(), declared: -1, sendWindow: c.peerWindow, recvWindow: streamWindow}
	s.cond.L = &c.mu
	s.place.Begin()
	x := s.place.Exchange()
	x.Start = time.Now()
	x.Protocol, x.Client, x.Local, x.TLS = exchange.HTTP2, c.cfg.Client, c.cfg.Local, c.cfg.TLS
	x.Informer = s
	c.opening = s
	c.streams[id] = s
	c.block.begin(x, nil)
	if c.cfg.WebSocket {
		c.block.AllowConnect()
	}
}

func (c *Conn) continuation(f *frame) error {
	if !c.block.open {
		return &connError{codeProtocol, "CONTINUATION of nothing"}
	}
	if len(f.payload) == 0 {
		if err := c.guard.cost(1); err != nil {
			return err
		}
	}
	return c.blockPart(f)
}

// blockPart takes in a part of a header block, and what it means with the last.
func (c *Conn) blockPart(f *frame) error {
	last := f.has(flagEndHeaders)
	if err := c.block.add(f.payload, last); err != nil {
		return err
	}
	switch {
	case !last:
		return nil
	case c.trailed != nil:
		return c.endTrailers()
	case c.opening != nil:
		return c.endHead()
	case c.blockBad != nil:
		return c.blockBad
	}
	return asError(c.guard.cost(1))
}

func (c *Conn) endTrailers() error {
	s := c.trailed
	c.trailed = nil
	bad := c.block.Err()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.blockBad != nil:
		return c.blockBad
	case bad != nil:
		return &streamError{s.id, codeProtocol, bad.Error()}
	case s.tunnels:
		return &streamError{s.id, codeProtocol, "a tunnel has no trailers"}
	case s.declared > 0:
		return &streamError{s.id, codeProtocol, "the body is shorter than its Content-Length"}
	}
	s.trailers = s.incoming
	s.ended = true
	s.cond.Broadcast()
	return nil
}

// endHead queues the stream whose head is whole now.
func (c *Conn) endHead() error {
	s := c.opening
	c.opening = nil
	x := s.place.Exchange()
	err := c.block.Finish()
	length := c.block.Length()
	x.Request.Scheme = c.cfg.Scheme
	s.head = string(x.Request.Method) == "HEAD"
	if err == nil && c.blockEnds && length > 0 {
		err = section.Malformed("there is no body, where a length is announced")
	}
	if err == nil && c.blockBad != nil {
		return c.discard(s, c.blockBad)
	}
	if err != nil {
		status, reason := section.StatusOf(err)
		if status == 0 {
			bad := &streamError{s.id, codeProtocol, reason}
			s.place.Reject(x, 400, reason) // to be counted; the client is not told
			s.place.Finish(x, 0, bad)
			return c.discard(s, bad)
		}
		s.answer, s.reason = status, reason
	}
	if err == nil && x.Request.WebSocket {
		s.socket = newHandshake(x)
	}
	s.tunnels = err == nil && (x.Request.WebSocket || x.Request.Connect)
	c.mu.Lock()
	s.ended = c.blockEnds
	s.declared, s.asking = length, c.block.Expecting()
	c.mu.Unlock()
	if !s.ended && !s.tunnels { // what is said in a tunnel is no body
		x.Request.Body = s
	}
	c.queue = append(c.queue, s)
	return nil
}

// discard gives up a stream that was never served.
func (c *Conn) discard(s *stream, why *streamError) error {
	p := s.place
	c.mu.Lock()
	s.place = nil
	s.dead = why
	delete(c.streams, s.id)
	c.idleSince = time.Now()
	c.settleDrain()
	c.mu.Unlock()
	c.cfg.Give(p)
	return why
}
