package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/proxy/proxyproto"
)

// enter reads the PROXY protocol header, where there is one to be read, and counts
// the client. gone tells whether the connection was closed meanwhile.
func (e *entry) enter(gone func() bool) bool {
	p := e.admission.Proxy
	if p == nil {
		return true
	}
	_ = e.socket.SetReadDeadline(time.Now().Add(p.Timeout)) // fails only on a closed connection, as the read then does
	if gone() {
		return false
	}
	header, err := readHeader(e.socket)
	if err != nil {
		return e.listener.refuse(RefusedProxy)
	}
	_ = e.socket.SetReadDeadline(time.Time{})
	if header.Client.IsValid() {
		e.client = header.Client
	}
	return e.count()
}

var errNoSocket = errors.New("not a TCP connection")

// readHeader reads a header and not a byte more: what follows is for others, who
// want it from the socket itself. So it looks first, and takes what it knows to be
// the header's.
func readHeader(c net.Conn) (proxyproto.Header, error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return proxyproto.Header{}, errNoSocket
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return proxyproto.Header{}, err
	}
	buf := make([]byte, 0, 256)
	for {
		if cap(buf)-len(buf) == 0 {
			buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
		}
		taken, seen := len(buf), 0
		if seen, err = peek(raw, buf[taken:cap(buf)]); err != nil {
			return proxyproto.Header{}, err
		}
		h, n, err := proxyproto.Parse(buf[:taken+seen])
		if err != nil {
			return h, err
		}
		end := n
		if n == 0 {
			end = taken + seen
		}
		if _, err := io.ReadFull(t, buf[taken:end]); err != nil || n > 0 {
			return h, err
		}
		buf = buf[:end]
	}
}

// peek waits until there is something to read and copies it, without taking it.
func peek(raw syscall.RawConn, p []byte) (n int, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case waited != nil:
		return 0, waited
	case err != nil:
		return 0, os.NewSyscallError("recvfrom", err)
	case n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}
