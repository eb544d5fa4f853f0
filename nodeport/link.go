package nodeport

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Link is a connection to one server's node API: HTTP/3, or HTTP/2 where UDP is
// blocked. When it breaks another one is made: nothing in it connects again by
// itself.
type Link struct {
	web      http.RoundTripper
	returned <-chan struct{}
	over     string
	close    func()
}

// Link connects to the node API at a server's address.
func (d *Dialer) Link(ctx context.Context, address string, trust Trust) (*Link, error) {
	c, err := d.dial(ctx, address, newSpeech(trust, protoHTTP3, protoHTTP2))
	if err != nil {
		return nil, err
	}
	if c.quic == nil {
		return overHTTP2(ctx, address, c)
	}
	web := (&http3.Transport{DisableCompression: true}).NewClientConn(c.quic)
	return &Link{web: web, over: "QUIC", close: func() {
		_ = c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}}, nil
}

func overHTTP2(ctx context.Context, address string, c *connection) (*Link, error) {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		DialTLSContext:     func(context.Context, string, string) (net.Conn, error) { return c.tcp, nil },
		Protocols:          &protocols,
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	web, err := transport.NewClientConn(ctx, "https", address)
	if err != nil {
		_ = c.tcp.Close()
		c.path.leave()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &Link{web: web, over: "TCP", returned: c.returned, close: sync.OnceFunc(func() {
		_ = web.Close()
		_ = c.tcp.Close()
		c.path.leave()
	})}, nil
}

// RoundTrip sends a request to the server, whatever its URL says.
func (l *Link) RoundTrip(r *http.Request) (*http.Response, error) { return l.web.RoundTrip(r) }

// Do is RoundTrip, as an HTTP client has it.
func (l *Link) Do(r *http.Request) (*http.Response, error) { return l.web.RoundTrip(r) }

// Over is "QUIC" or "TCP".
func (l *Link) Over() string { return l.over }

// Returned is closed when the link is over TCP and UDP works again: another link
// would be over QUIC.
func (l *Link) Returned() <-chan struct{} { return l.returned }

// Close ends the link and all calls on it.
func (l *Link) Close() { l.close() }
