package nodeapi

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	// maxRequest is far more than any message of a node needs.
	maxRequest = 256 << 10
	// Both sides notice within idleTimeout that the other is gone; a restarted
	// server is noticed at the next heartbeat, by its stateless reset.
	keepAlive        = 4 * time.Second
	idleTimeout      = 12 * time.Second
	handshakeTimeout = 5 * time.Second
	// stopTimeout is how long calls in flight may take to end at a stop.
	stopTimeout = 2 * time.Second
)

// Registrar admits nodes. It is met by [identity.Registrar].
type Registrar interface {
	Join(ctx context.Context, m identity.JoinRequest, inUse func(identity.ID) bool) (*identity.Admission, error)
	Check(ctx context.Context, id identity.ID, peer crypto.PublicKey) error
	Renew(ctx context.Context, id identity.ID, peer crypto.PublicKey, csr []byte) (*weirv1.Credentials, error)
}

// ServerConfig is what a server is made of. All but Protocols is required.
type ServerConfig struct {
	Identity  *identity.Identity
	Registrar Registrar
	Source    Source
	Logger    *slog.Logger
	// ResetKey lets clients notice a restart at once. It must be secret and
	// stay the same.
	ResetKey [32]byte
	// Protocols are what else is spoken on the same port, by ALPN name. A
	// handler owns the connection it is given, and returns when ctx ends.
	Protocols map[string]func(ctx context.Context, conn *quic.Conn)
}

// Server is the servers' side of the node API.
type Server struct {
	cfg     ServerConfig
	hub     *hub
	proxies *Proxies
	handler http.Handler
	stop    chan struct{} // closed when streams must end
}

// NewServer makes a server; Serve runs it.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, hub: newHub(cfg.Source, cfg.Logger), proxies: newProxies(), stop: make(chan struct{})}
	rpc := connect.NewServer()
	weirv1connect.RegisterNodeServiceHandler(rpc, s)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc,
		connecthttp.WithReadMaxBytes(maxRequest),
		connecthttp.WithCompressors(fastGzip()),
		connecthttp.WithConditionalOptions(func(spec connect.Spec) []connecthttp.Option {
			if spec.Procedure == weirv1connect.NodeServiceStreamConfigProcedure {
				return []connecthttp.Option{connecthttp.WithCompressors()} // its messages are packed already
			}
			return nil
		}))
	s.handler = s.identify(mux)
	return s
}

func fastGzip() connect.Compressor { return connectgzip.New(connectgzip.WithLevel(1)) }

// Proxies is what the server knows of its proxies.
func (s *Server) Proxies() *Proxies { return s.proxies }

// Revision is the newest revision that the server has to give.
func (s *Server) Revision() uint64 { return s.hub.revision() }

// Serve answers on a UDP socket until ctx ends, then ends all streams and
// closes the socket. It may be called once.
func (s *Server) Serve(ctx context.Context, socket net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resetKey := quic.StatelessResetKey(s.cfg.ResetKey)
	// Packets must be longer than a stateless reset to get one for an answer.
	transport := &quic.Transport{Conn: socket, StatelessResetKey: &resetKey, ConnectionIDLength: 16}
	listener, err := transport.Listen(s.tls(), quicConfig())
	if err != nil {
		return errors.Join(fmt.Errorf("serve node API: %w", err), socket.Close())
	}
	web := &http3.Server{Handler: s.handler, Logger: slog.New(slog.DiscardHandler)}

	var running sync.WaitGroup
	running.Go(func() { s.hub.run(ctx) })
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			break
		}
		running.Go(func() { s.serveConn(ctx, web, conn) })
	}
	if ctx.Err() == nil {
		err = errors.New("serve node API: the socket failed")
	} else {
		err = nil
	}
	s.shutDown(ctx, web)
	cancel()
	err = errors.Join(err, listener.Close(), transport.Close(), socket.Close())
	running.Wait()
	return ignoreClosed(err)
}

// shutDown lets calls in flight end: streams are told to, short calls may
// finish.
func (s *Server) shutDown(ctx context.Context, web *http3.Server) {
	close(s.stop)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	_ = web.Shutdown(grace)
	_ = web.Close()
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// tls is the identity's, with a word in the log for each peer that is refused:
// the peer itself may never show what it was told.
func (s *Server) tls() *tls.Config {
	base := s.cfg.Identity.ServerTLS(s.protocols()...)
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		each := base.Clone()
		each.VerifyConnection = func(state tls.ConnectionState) error {
			err := base.VerifyConnection(state)
			if err != nil {
				s.cfg.Logger.Warn("peer refused", "address", hello.Conn.RemoteAddr().String(), "error", err)
			}
			return err
		}
		return each, nil
	}
	return config
}

func (s *Server) protocols() []string {
	names := []string{http3.NextProtoH3}
	for name := range s.cfg.Protocols {
		names = append(names, name)
	}
	return names
}

func (s *Server) serveConn(ctx context.Context, web *http3.Server, conn *quic.Conn) {
	name := conn.ConnectionState().TLS.NegotiatedProtocol
	if handler := s.cfg.Protocols[name]; handler != nil {
		handler(ctx, conn)
		return
	}
	_ = web.ServeQUICConn(conn)
	_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout: handshakeTimeout,
		MaxIdleTimeout:       idleTimeout,
		KeepAlivePeriod:      keepAlive,
	}
}
