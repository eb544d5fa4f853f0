package wire

import (
	"errors"
	"os"
	"syscall"
)

// Out is the write buffer for appending: c.SetOut(append(c.Out(), …)).
func (c *Conn) Out() []byte {
	if c.out == nil {
		c.out = borrow(SmallBuffer)
		c.out.b = c.out.b[:0]
	}
	return c.out.b
}

// SetOut puts back what Out gave, appended to.
func (c *Conn) SetOut(b []byte) { c.out.b = b }

// Pending counts the bytes that Flush would write.
func (c *Conn) Pending() int {
	if c.out == nil {
		return 0
	}
	return len(c.out.b)
}

// Write sends p, together with what is pending: a small p is only gathered, a
// large one goes out without being copied.
func (c *Conn) Write(p []byte) error {
	if c.Pending()+len(p) <= SmallBuffer {
		c.SetOut(append(c.Out(), p...))
		return nil
	}
	if c.Pending() == 0 {
		_, err := c.writeAll(p)
		return err
	}
	if c.raw != nil && len(p) > SmallBuffer/2 {
		return c.writeBoth(p)
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return c.Write(p)
}

// writeBoth writes what is pending and p in one call (writev).
func (c *Conn) writeBoth(p []byte) error {
	c.both = [2][]byte{c.out.b, p}
	c.vec = c.both[:]
	for {
		_, err := c.vec.WriteTo(c.net) // consumes what it has written
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && c.rearmWrite() {
			continue
		}
		c.both, c.vec = [2][]byte{}, nil
		c.dropOut()
		return err
	}
}

// Flush writes what is pending.
func (c *Conn) Flush() error {
	if c.Pending() == 0 {
		return nil
	}
	_, err := c.writeAll(c.out.b)
	c.dropOut()
	return err
}

func (c *Conn) dropOut() {
	b := c.out
	c.out = nil
	if cap(b.b) == SmallBuffer {
		b.b = b.b[:SmallBuffer]
		giveBack(b)
	}
}

func (c *Conn) writeAll(p []byte) (int, error) {
	done := 0
	for {
		n, err := c.writeOnce(p[done:])
		done += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.rearmWrite() {
			return done, err
		}
	}
}

// writeOnce writes p, or as much of it as the armed deadline allows.
func (c *Conn) writeOnce(p []byte) (int, error) {
	if c.raw == nil {
		return c.net.Write(p)
	}
	c.rest, c.putOK = p, nil
	err := c.raw.Write(c.put)
	if err == nil {
		err = c.putOK
	}
	n := len(p) - len(c.rest)
	c.rest = nil
	return n, err
}

// tryWrite is called when the socket may be writable.
func (c *Conn) tryWrite(fd uintptr) (done bool) {
	for len(c.rest) > 0 {
		n, err := write(int(fd), c.rest)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			c.putOK = os.NewSyscallError("write", err)
			return true
		}
		c.rest = c.rest[n:]
	}
	return true
}

// Ask sends what is pending and waits for an answer, as Flush and Fill do. But
// when something can be read before anything was sent, which then is no answer to
// it, Ask sends nothing and fails with ErrStale.
//
// To look costs nothing: one reads in vain before one waits, and Ask does that
// before it writes instead of after. Over TLS it is a system call of its own, and
// what is looked for is the end alone, as in Alive.
func (c *Conn) Ask(hint, max int) error {
	switch {
	case c.start != c.end || c.eof:
		return ErrStale
	case c.raw == nil:
		if c.endedBelow() {
			return ErrStale
		}
		if err := c.Flush(); err != nil {
			return err
		}
		return c.Fill(hint, max)
	}
	c.ask = true
	err := c.Fill(hint, max)
	c.ask = false
	if err != errShort {
		return err
	}
	_, err = c.writeAll(c.out.b[c.wrote:])
	c.dropOut()
	if err != nil {
		return err
	}
	return c.Fill(hint, max)
}

// tryAsk is tryRead's first call on behalf of Ask.
func (c *Conn) tryAsk(fd uintptr) (done bool) {
	c.ask = false
	if readable(int(fd)) {
		c.tryOK = ErrStale
		return true
	}
	n, err := write(int(fd), c.out.b)
	switch {
	case err == syscall.EAGAIN || err == nil && n < len(c.out.b):
		c.wrote, c.tryOK = max(0, n), errShort
		return true
	case err != nil:
		c.tryOK = os.NewSyscallError("write", err)
		return true
	}
	c.dropOut()
	return false
}

// Adopt takes over what is pending on another connection.
func (c *Conn) Adopt(from *Conn) { c.out, from.out = from.out, nil }
