package nodeport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
)

// socket is a UDP socket connected to one peer. Being connected it is told when
// the peer's machine says that nobody listens there, so that a server that was
// killed is noticed at the next packet.
type socket struct {
	*net.UDPConn
	// heard is set once anything has come back: the way is open, however long
	// the answer takes.
	heard atomic.Bool
}

// WriteTo and WriteMsgUDP send to the peer: a connected socket takes no address.
func (s *socket) WriteTo(p []byte, _ net.Addr) (int, error) { return s.Write(p) }

func (s *socket) WriteMsgUDP(p, oob []byte, _ *net.UDPAddr) (n, oobn int, err error) {
	return s.UDPConn.WriteMsgUDP(p, oob, nil)
}

// SyscallConn is what package quic reads by.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	raw, err := s.UDPConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return listeningConn{raw, s}, nil
}

type listeningConn struct {
	syscall.RawConn
	socket *socket
}

func (c listeningConn) Read(f func(fd uintptr) bool) error {
	return c.RawConn.Read(func(fd uintptr) bool {
		done := f(fd)
		if done {
			c.socket.heard.Store(true)
		}
		return done
	})
}

// resolve picks one of the addresses of a name: any, so that nodes spread over
// them.
func resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number", port)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[rand.N(len(ips))].Unmap(), uint16(number)), nil
}

func (d *Dialer) openSocket(ctx context.Context, to netip.AddrPort) (*socket, error) {
	conn, err := d.cfg.Dial(ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no UDP socket", conn), conn.Close())
	}
	return &socket{UDPConn: udp}, nil
}
