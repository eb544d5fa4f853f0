// Package wire is a connection as the codecs see it: reads into memory that is
// borrowed only while there is something in it, writes that are gathered, and
// timeouts that cost nothing until they fire.
//
//	socket ─▶ Fill ─▶ Buffered ─▶ Discard        Append ─▶ Flush ─▶ socket
//
// # Memory
//
// A connection that waits for its peer holds no buffer: the read buffer is
// taken from a pool when the socket turns readable and given back when it has
// been emptied, the write buffer lives from the first Append to Flush.
//
// # Timeouts
//
// Arming a runtime timer for every request costs more than parsing it. A
// ReadUntil that lies after the armed deadline is only remembered: when the
// armed one fires too early the read arms the remembered one and waits on. So a
// busy connection touches its timer once per timeout, not once per request, and
// a timeout is still never early and late by nothing.
//
// # Concurrency
//
// One goroutine may read while another writes. Abort, AbortRead and Close may be
// called by anyone.
package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrTooLong says that what is awaited does not fit the read buffer's limit.
var ErrTooLong = errors.New("message head is too long")

// ErrStale says that a connection was not idle when it was asked something: its
// peer had closed it, or sent what nobody had asked for. Nothing was sent on it.
var ErrStale = errors.New("connection is stale")

// errShort says that Ask could send only part of what was pending.
var errShort = errors.New("short write")

// Sizes of the pooled buffers: a small one holds a head and a small body, a
// large one carries bodies.
const (
	SmallBuffer = 4 << 10
	LargeBuffer = 64 << 10
)

// Conn is a buffered connection. Make it with [New].
type Conn struct {
	net net.Conn
	raw syscall.RawConn // nil where the bytes do not come from the socket itself (TLS)

	in         *buffer // borrowed while it holds unread bytes, or while filling
	start, end int     // the unread part of in
	eof        bool

	out *buffer // what Flush will write: out.b[:len]

	readUntil, readArmed   int64 // Unix nanoseconds; 0: never
	writeUntil, writeArmed int64

	try   func(fd uintptr) bool // reads once; kept, so that a read allocates nothing
	want  int                   // how large a buffer try should borrow
	got   int
	tryOK error
	ask   bool // try sends what is pending first
	wrote int  // how much of it

	peek   func(fd uintptr) // looks for something to read; kept for the same reason
	peeked bool
	under  syscall.RawConn // of the socket below TLS, once it was looked at

	put   func(fd uintptr) bool // writes rest; kept for the same reason
	rest  []byte
	putOK error

	both [2][]byte // what writeBoth writes
	vec  net.Buffers

	readAborted, writeAborted atomic.Bool
	closed                    atomic.Bool
}

type buffer struct{ b []byte }

var (
	small = sync.Pool{New: func() any { return &buffer{make([]byte, SmallBuffer)} }}
	large = sync.Pool{New: func() any { return &buffer{make([]byte, LargeBuffer)} }}
)

func borrow(n int) *buffer {
	switch {
	case n <= SmallBuffer:
		return small.Get().(*buffer)
	case n <= LargeBuffer:
		return large.Get().(*buffer)
	}
	return &buffer{make([]byte, n)}
}

func giveBack(b *buffer) {
	switch len(b.b) {
	case SmallBuffer:
		small.Put(b)
	case LargeBuffer:
		large.Put(b)
	}
}

// New wraps a connection. The Conn owns it from then on.
func New(c net.Conn) *Conn {
	w := &Conn{net: c}
	if s, ok := c.(*net.TCPConn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			w.raw = raw
			w.try, w.peek, w.put = w.tryRead, w.tryPeek, w.tryWrite
		}
	}
	return w
}

// Net is the connection underneath, for its addresses and its TLS state.
func (c *Conn) Net() net.Conn { return c.net }

// Buffered is what was read and not yet discarded. It is valid until the next
// Fill or Discard.
func (c *Conn) Buffered() []byte {
	if c.in == nil {
		return nil
	}
	return c.in.b[c.start:c.end]
}

// Discard drops n buffered bytes. The bytes stay readable until the next Fill:
// a parsed head may be used while its body is read only if the head was moved
// out of the buffer, see [Conn.Detach].
func (c *Conn) Discard(n int) { c.start += n }

// Release gives an emptied read buffer back. Slices of it die with that.
func (c *Conn) Release() {
	if c.in != nil && c.start == c.end {
		giveBack(c.in)
		c.in, c.start, c.end = nil, 0, 0
	}
}

// Detached is memory taken out of a connection by Detach.
type Detached struct{ held *buffer }

// Free gives the memory back.
func (d *Detached) Free() {
	if d.held != nil {
		giveBack(d.held)
		d.held = nil
	}
}

// Detach hands the first n buffered bytes, with the memory they lie in, to the
// caller: they stay valid until Free. What was buffered behind them moves to a
// buffer of its own.
func (c *Conn) Detach(n int) Detached {
	held := c.in
	rest := held.b[c.start+n : c.end]
	c.in, c.start, c.end = nil, 0, 0
	if len(rest) > 0 {
		c.in = borrow(len(rest))
		c.end = copy(c.in.b, rest)
	}
	return Detached{held}
}

// Fill reads at least one more byte behind what is buffered. hint is how much
// the caller could use, max how much may be buffered in all: where that is
// reached Fill fails with ErrTooLong. At the end of the stream it returns
// io.EOF; a timeout is os.ErrDeadlineExceeded.
func (c *Conn) Fill(hint, max int) error {
	if c.eof {
		return io.EOF
	}
	if buffered := c.end - c.start; buffered > 0 {
		if buffered >= max {
			return ErrTooLong
		}
		c.makeRoom(buffered, max)
	} else {
		c.Release()
	}
	c.want = hint
	for {
		n, err := c.readOnce()
		if n > 0 {
			c.end += n
			return nil
		}
		switch {
		case err == nil || err == io.EOF:
			c.eof = true
			return io.EOF
		case errors.Is(err, os.ErrDeadlineExceeded) && c.rearmRead():
		default:
			return err
		}
	}
}

// makeRoom lets a partly filled buffer take more: by moving what it holds to
// the front, or into a larger one.
func (c *Conn) makeRoom(buffered, max int) {
	if c.end < len(c.in.b) {
		return
	}
	if c.start > 0 {
		c.end = copy(c.in.b, c.in.b[c.start:c.end])
		c.start = 0
		return
	}
	grown := borrow(min(max, 4*len(c.in.b)))
	c.end = copy(grown.b, c.in.b[:buffered])
	giveBack(c.in)
	c.in = grown
}

func (c *Conn) readOnce() (int, error) {
	if c.raw == nil {
		if c.in == nil {
			c.in = borrow(c.want)
		}
		return c.net.Read(c.in.b[c.end:])
	}
	c.got, c.tryOK = 0, nil
	if err := c.raw.Read(c.try); err != nil {
		return 0, err
	}
	return c.got, c.tryOK
}

// tryRead is called when the socket may be readable, so that a connection that
// waits holds no buffer.
func (c *Conn) tryRead(fd uintptr) bool {
	if c.ask {
		return c.tryAsk(fd)
	}
	borrowed := c.in == nil
	if borrowed {
		c.in = borrow(c.want)
	}
	n, err := read(int(fd), c.in.b[c.end:])
	if n <= 0 && borrowed {
		giveBack(c.in)
		c.in = nil
	}
	if err == syscall.EAGAIN {
		return false
	}
	c.got = n
	if err != nil {
		c.got, c.tryOK = 0, os.NewSyscallError("read", err)
	}
	return true
}

// ReadUntil bounds reads in time; the zero time lifts the bound.
func (c *Conn) ReadUntil(t time.Time) {
	c.readUntil = nanos(t)
	if c.readUntil != 0 && (c.readArmed == 0 || c.readUntil < c.readArmed) {
		c.armRead()
	}
}

func (c *Conn) armRead() {
	c.readArmed = c.readUntil
	_ = c.net.SetReadDeadline(at(c.readUntil)) // fails only on a closed connection, as the read then does
	if c.readAborted.Load() {
		_ = c.net.SetReadDeadline(past) // AbortRead came first: do not undo it
	}
}

// rearmRead is asked when the armed deadline fired: is there a later one?
func (c *Conn) rearmRead() bool {
	if c.readAborted.Load() || c.readUntil != 0 && time.Now().UnixNano() >= c.readUntil {
		return false
	}
	c.armRead()
	return true
}

// WriteUntil bounds writes in time; the zero time lifts the bound.
func (c *Conn) WriteUntil(t time.Time) {
	c.writeUntil = nanos(t)
	if c.writeUntil != 0 && (c.raw == nil || c.writeArmed == 0 || c.writeUntil < c.writeArmed) { // TLS does not survive one that fires early
		c.armWrite()
	}
}

func (c *Conn) armWrite() {
	c.writeArmed = c.writeUntil
	_ = c.net.SetWriteDeadline(at(c.writeUntil))
	if c.writeAborted.Load() {
		_ = c.net.SetWriteDeadline(past)
	}
}

func (c *Conn) rearmWrite() bool {
	if c.raw == nil || c.writeAborted.Load() || c.writeUntil != 0 && time.Now().UnixNano() >= c.writeUntil {
		return false
	}
	c.armWrite()
	return true
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func at(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

var past = time.Unix(1, 0)

// Abort makes reads and writes that wait fail at once, with
// os.ErrDeadlineExceeded, as do those that follow. Anyone may call it; the
// connection is good for nothing but Close from then on.
func (c *Conn) Abort() {
	c.AbortRead()
	c.writeAborted.Store(true)
	_ = c.net.SetWriteDeadline(past)
}

// Aborted reports whether reads or writes were aborted, and not resumed.
func (c *Conn) Aborted() bool { return c.readAborted.Load() || c.writeAborted.Load() }

// AbortRead does that to reads alone.
func (c *Conn) AbortRead() {
	c.readAborted.Store(true)
	_ = c.net.SetReadDeadline(past)
}

// ResumeRead allows reads again after AbortRead. The caller is the only one who
// reads from now on.
func (c *Conn) ResumeRead() {
	// The deadline in the past is replaced like any other that fires too early.
	c.readAborted.Store(false)
}

// Alive reports whether an idle connection can be used again: nothing was
// received on it, not even its end. Below TLS there may be something that is no
// answer, such as a session ticket: of that, only the end is looked for.
func (c *Conn) Alive() bool {
	switch {
	case c.start != c.end || c.eof:
		return false
	case c.raw == nil:
		return !c.endedBelow()
	}
	return c.raw.Control(c.peek) == nil && !c.peeked
}

func (c *Conn) tryPeek(fd uintptr) { c.peeked = readable(int(fd)) }

// endedBelow reports whether the socket below TLS was closed by its peer,
// whatever is still to be read from it.
func (c *Conn) endedBelow() bool {
	if c.under == nil {
		secured, ok := c.net.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		socket, ok := secured.NetConn().(*net.TCPConn)
		if !ok {
			return false
		}
		raw, err := socket.SyscallConn()
		if err != nil {
			return true
		}
		c.under, c.peek = raw, c.tryEnd
	}
	return c.under.Control(c.peek) != nil || c.peeked
}

func (c *Conn) tryEnd(fd uintptr) { c.peeked = ended(int(fd)) }

// CloseBroken closes the connection so that the peer sees it break, where a
// clean end would say that all was sent.
func (c *Conn) CloseBroken() {
	if t, ok := c.net.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// Close closes the connection. It may be called more than once.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.net.Close()
}

// Free gives the connection's memory back. The caller is the last who uses it.
func (c *Conn) Free() {
	if c.in != nil {
		giveBack(c.in)
		c.in, c.start, c.end = nil, 0, 0
	}
	if c.out != nil {
		c.dropOut()
	}
}
