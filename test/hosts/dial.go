//go:build linux

package hosts

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// Dial connects from this host. The address is an IP and a port: hosts have no
// resolver.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.open(address, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on this host.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := h.open(address, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// ListenPacket opens a UDP socket on this host.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.open(address, func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// open makes a socket inside. A name would be looked up by goroutines that are
// outside, so only addresses are taken.
func (h *Host) open(address string, f func() error) error {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return fmt.Errorf("open socket on host %s: %w", h.Name, err)
	}
	return h.space.inside(f)
}

// HTTPClient makes a client whose requests leave from this host. It keeps its
// connections until the test ends.
func (h *Host) HTTPClient() *http.Client {
	transport := &http.Transport{DialContext: h.Dial}
	h.net.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
