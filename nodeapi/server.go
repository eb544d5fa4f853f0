package nodeapi

import (
	"context"
	"crypto"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	// maxRequest is far more than any message of a node needs.
	maxRequest = 256 << 10
	// defaultProxies is how many proxies a server takes: there are others.
	defaultProxies = 10_000
)

// Registrar admits nodes. It is met by [identity.Registrar].
type Registrar interface {
	Join(ctx context.Context, m identity.JoinRequest, inUse func(identity.ID) bool) (*identity.Admission, error)
	Check(ctx context.Context, id identity.ID, peer crypto.PublicKey) error
	Renew(ctx context.Context, id identity.ID, peer crypto.PublicKey, csr []byte) (*weirv1.Credentials, error)
	// Waits tells whether a rotation of the root waits until a node renews; the
	// channel is closed when that may have changed.
	Waits(ctx context.Context, id identity.ID) (waits bool, changed <-chan struct{}, err error)
}

// ServerConfig is what a server is made of. All but Servers, Elsewhere, Usage, Instances and
// MaxProxies is required.
type ServerConfig struct {
	Identity  *identity.Identity
	Registrar Registrar
	Source    Source
	Logger    *slog.Logger
	// Servers is where the cluster's servers can be reached, and a channel that is
	// closed when that has changed since. Proxies are told.
	Servers func() ([]string, <-chan struct{})
	// Elsewhere tells whether a proxy of that name is connected to another server; nil:
	// there is no other.
	Elsewhere func(name string) bool
	// Instances is where sidecars register; nil: nowhere.
	Instances Instances
	// Usage adds what a node has counted, for good, once it returns; nil: nobody does.
	// Its error wraps ErrUsageRefused where that will never be.
	Usage func(ctx context.Context, node string, m *weirv1.ReportUsageRequest) error
	// MaxProxies are connected at once; more are sent to other servers.
	MaxProxies int
	// Leases decides what proxies ask for of limits; nil: nobody does.
	Leases Leases
}

// Server is the servers' side of the node API.
type Server struct {
	cfg     ServerConfig
	hub     *hub
	proxies *Proxies
	outcast notice // the keys that proxies are told not to believe
	handler http.Handler
	// sendTimeout is the constant of the name, but in tests.
	sendTimeout time.Duration
	away        atomic.Bool     // proxies are turned away
	leaderless  atomic.Bool     // those that want a server with a leader are
	leasing     chan struct{}   // has a place for each proxy that waits for tokens
	life        context.Context // ends when streams must
	end         context.CancelFunc
}

// NewServer makes a server; Run runs it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxProxies == 0 {
		cfg.MaxProxies = defaultProxies
	}
	if cfg.Servers == nil {
		cfg.Servers = func() ([]string, <-chan struct{}) { return nil, nil }
	}
	s := &Server{cfg: cfg, hub: newHub(cfg.Source, cfg.Logger), proxies: newProxies(cfg.MaxProxies), sendTimeout: sendTimeout, leasing: make(chan struct{}, maxLeaseCalls)}
	s.life, s.end = context.WithCancel(context.Background())
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

// TurnAway has proxies go to other servers, those that are connected and those
// that come, for as long as it is so.
func (s *Server) TurnAway(away bool) {
	if was := s.away.Swap(away); away && !was {
		s.proxies.end(errNoServer, func(*session) bool { return true })
	}
}

// Leaderless has proxies look for a server that knows a leader, for as long as this
// one does not. Those that have found none stay.
func (s *Server) Leaderless(now bool) {
	if was := s.leaderless.Swap(now); now && !was {
		s.proxies.end(errNoLeader, func(of *session) bool { return of.wantsLeader })
	}
}

// ShutOut ends the streams of proxies that are none any more, as why says, and forgets
// them. New ones are refused by the Registrar.
func (s *Server) ShutOut(why func(identity.ID, crypto.PublicKey) error) {
	s.proxies.shutOut(func(id identity.ID, key crypto.PublicKey) error {
		err := why(id, key)
		if err == nil {
			return nil
		}
		return connect.NewError(connect.CodePermissionDenied, err.Error())
	})
}

// TellShutOut has all proxies told the keys of those that are none any more, from now on.
func (s *Server) TellShutOut(keys *weirv1.ShutOut) {
	s.outcast.set(&weirv1.StreamConfigResponse{ShutOut: keys})
}

// turnsAway says why a proxy is not served here now; nil: it is.
func (s *Server) turnsAway(sub *weirv1.Subscribe) error {
	switch {
	case s.away.Load():
		return errNoServer
	case s.leaderless.Load() && sub.GetWantsLeader():
		return errNoLeader
	}
	return nil
}

// Run keeps the server up to date, and ends all streams when ctx ends. What
// [Server.ServeHTTP] is asked before that waits. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.end()
	s.hub.run(ctx)
	return nil
}

// ServeHTTP answers nodes, on a port that has seen to it who they are.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }
