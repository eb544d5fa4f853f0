package nodeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
	// callTimeout bounds a short call.
	callTimeout = 10 * time.Second
)

// link is a connection to one server, over a socket of its own. When it breaks
// another one is made: nothing in it connects again by itself.
type link struct {
	address   string
	transport *quic.Transport
	conn      *quic.Conn
	api       weirv1connect.NodeServiceClient
}

func dialLink(ctx context.Context, address string, config *tls.Config) (*link, error) {
	to, err := resolve(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	socket, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	l := &link{address: address, transport: &quic.Transport{Conn: socket}}
	settings := quicConfig()
	settings.MaxIncomingStreams = -1 // servers answer, and call nobody
	if l.conn, err = l.transport.Dial(ctx, to, config, settings); err != nil {
		l.close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	web := (&http3.Transport{DisableCompression: true}).NewClientConn(l.conn)
	l.api = weirv1connect.NewNodeServiceClient(connect.NewClient(connecthttp.NewTransport(doer{web}, "https://"+address,
		connecthttp.WithCompressors(fastGzip()))))
	return l, nil
}

func resolve(ctx context.Context, address string) (*net.UDPAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q is not a number", port)
	}
	// A name of several addresses: any, so that proxies spread over them.
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	ip := ips[rand.N(len(ips))]
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(number))), nil
}

// doer is a connection as an HTTP client.
type doer struct{ conn *http3.ClientConn }

func (d doer) Do(r *http.Request) (*http.Response, error) { return d.conn.RoundTrip(r) }

func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	_ = l.transport.Close()
	_ = l.transport.Conn.Close()
}

// wrongPeer tells whether a call failed because the two sides do not believe
// each other: trying again does not help.
func wrongPeer(err error) bool {
	var failed *quic.TransportError
	return errors.As(err, &failed) && failed.ErrorCode.IsCryptoError()
}

// backoff waits ever longer between tries, never twice as long as another.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// wait returns false when ctx ended.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(2*b.next, retryMin), retryMax)
	return pause(ctx, b.next/2+rand.N(b.next))
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
