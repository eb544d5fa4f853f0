package nodeport

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// What a peer may send before it is read. The windows of a connection that
	// is used grow on their own; those of a thousand that are not stay small.
	firstWindow      = 64 << 10
	streamWindow     = 4 << 20
	connectionWindow = 8 << 20
)

func serverQUIC() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		MaxIncomingStreams:             maxStreams,
		InitialStreamReceiveWindow:     firstWindow,
		InitialConnectionReceiveWindow: 2 * firstWindow,
		MaxStreamReceiveWindow:         streamWindow,
		MaxConnectionReceiveWindow:     connectionWindow,
	}
}

// arrival follows a QUIC connection from its first packet on.
type arrival struct {
	port     *Port
	accepted atomic.Bool
}

type arrivalKey struct{}

var errFull = errors.New("too many connections or handshakes at once")

// admitQUIC counts a connection for as long as it lasts.
func (p *Port) admitQUIC(ctx context.Context, peer *quic.ClientInfo) (context.Context, error) {
	if p.handshakes.Load() >= maxHandshakes || !p.take() {
		p.refusals.note(peer.RemoteAddr.String(), "QUIC", errFull)
		return nil, errFull
	}
	p.handshakes.Add(1)
	a := &arrival{port: p}
	ctx = context.WithValue(ctx, arrivalKey{}, a)
	// It counts atomics down and at worst writes a line: nobody waits for it.
	context.AfterFunc(ctx, func() {
		p.release()
		if a.accepted.CompareAndSwap(false, true) {
			p.handshakes.Add(-1)
			if cause := context.Cause(ctx); refused(cause) {
				p.refusals.note(peer.RemoteAddr.String(), "QUIC", cause)
			}
		}
	})
	return ctx, nil
}

// refused tells whether a handshake failed because one of the two did not
// believe or understand the other, rather than by the network, or because the
// peer had found another way.
func refused(err error) bool {
	var said *quic.TransportError
	return errors.As(err, &said) && said.ErrorCode.IsCryptoError()
}

// acceptQUIC hands connections on as fast as they come: those that wait are
// few, and what comes above that is refused by the library.
func (p *Port) acceptQUIC(ctx context.Context, listener *quic.Listener, web *http3.Server) error {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return err
		}
		p.running.Go(func() { p.serveQUIC(ctx, web, conn) })
	}
}

func (p *Port) serveQUIC(ctx context.Context, web *http3.Server, conn *quic.Conn) {
	if a, ok := conn.Context().Value(arrivalKey{}).(*arrival); ok && a.accepted.CompareAndSwap(false, true) {
		p.handshakes.Add(-1)
	}
	state := conn.ConnectionState().TLS
	if state.NegotiatedProtocol != protoRaft {
		_ = web.ServeQUICConn(conn)
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		return
	}
	if id, err := memberOf(p.cfg.Identity, state); err == nil {
		p.cfg.Members.serveQUIC(ctx, conn, id.Name, p.checkMember(id, state, conn.RemoteAddr().String(), "QUIC"))
	}
	_ = conn.CloseWithError(codeGoingAway, "the server is stopping")
}

func (p *Port) http3Server() *http3.Server {
	return &http3.Server{Handler: p, MaxHeaderBytes: maxHeader, Logger: slog.New(slog.DiscardHandler)}
}
