package nodeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
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

// link is a connection to one server, made at its first call.
type link struct {
	address   string
	transport *http3.Transport
	api       weirv1connect.NodeServiceClient
}

func newLink(address string, config *tls.Config) *link {
	transport := &http3.Transport{TLSClientConfig: config, QUICConfig: quicConfig(), DisableCompression: true}
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "https://"+address,
		connecthttp.WithCompressors(fastGzip())))
	return &link{address: address, transport: transport, api: weirv1connect.NewNodeServiceClient(client)}
}

func (l *link) close() { _ = l.transport.Close() }

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
