// Package admin is the admin API: how people and programs declare, read and
// follow what Weir does, and operate the servers that do it. It serves
// weir.v1.AdminService and weir.v1.ClusterService as gRPC, gRPC-Web and JSON
// over HTTP on one port, with reflection and health beside them; and, to whoever
// asks, /healthz, /readyz and /metrics.
//
//	request ─▶ guard (who is it, and not a stranger's web page)
//	        ─▶ codec (JSON in the Gateway API's spelling too)
//	        ─▶ normalise, validate ─▶ a Command ─▶ Cluster.Propose ─▶ answer
//	        ─▶ or a read of the Store, after Cluster.Sync
//
// [New] makes the handler and [Serve] runs it. What the API needs of the rest
// of the process are the few interfaces of [Config]; it knows neither Raft nor
// the database nor the proxies.
//
// # Without a majority
//
// A member that has lost the others still answers what it can by itself: the
// status, the doctor, the lists, stale reads, and a backup that is marked as
// stale. A change and a read that must be current wait for a leader, for 10 s or
// as long as the caller has time, and then say who is missing.
//
// # What an error means
//
// InvalidArgument and FailedPrecondition: refused, and nothing was stored; the
// details (google.rpc.BadRequest) name each field. Aborted: someone else
// changed it meanwhile. Unavailable: certainly not done, try again. Unknown:
// it may have been done, or still be; read before trying again.
package admin

import (
	"errors"
	"log/slog"
	"net/http"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"connectrpc.com/grpcreflect"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// How much one call may send. A transaction of ten thousand routes has some
// four MiB; a module of stock Go some five.
const (
	maxRequest = 32 << 20
	maxModule  = 64 << 20
	// A module travels with a little beside it, and in JSON as base64.
	maxPush = maxModule/3*4 + 1<<20
	// Less than this is answered as it is: to compress it costs both sides more
	// than to send it.
	minCompressed = 4 << 10
)

// Config is what the API is made of. Store, Cluster, Servers, Proxies,
// Admission and JoinTokens are required.
type Config struct {
	Store      Store
	Cluster    Cluster
	Servers    Servers
	Proxies    Proxies
	Admission  Admission
	JoinTokens JoinTokens
	// Keys may be nil: then there are none that can be rotated.
	Keys Keys
	// Limits may be nil: then there are none to tell of.
	Limits Limits

	// Sealer seals the keys of Certificates. Without it none can be declared.
	Sealer Sealer
	// Tokens knows the bearer tokens. Without it none is known.
	Tokens Authenticator
	// AllowLoopback admits callers of this host without a token.
	AllowLoopback bool

	// Metrics serves /metrics; nil: nothing does.
	Metrics http.Handler

	// Logger gets a line for each change. Nil: slog.Default.
	Logger  *slog.Logger
	Version string
}

func (c Config) validate() error {
	var missing []error
	for name, present := range map[string]bool{
		"Store": c.Store != nil, "Cluster": c.Cluster != nil, "Servers": c.Servers != nil, "Proxies": c.Proxies != nil,
		"Admission": c.Admission != nil, "JoinTokens": c.JoinTokens != nil,
	} {
		if !present {
			missing = append(missing, errors.New("start admin API: "+name+" is missing"))
		}
	}
	if c.Tokens == nil && !c.AllowLoopback {
		missing = append(missing, errors.New("start admin API: nobody could call it: give Tokens or AllowLoopback"))
	}
	return errors.Join(missing...)
}

// New makes the handler of the whole admin port.
func New(config Config) (http.Handler, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &service{Config: config, pushing: make(chan struct{}, 1)}
	server := connect.NewServer(s.outcome)
	weirv1connect.RegisterAdminServiceHandler(server, s)
	weirv1connect.RegisterClusterServiceHandler(server, operator{s})
	weirv1connect.RegisterUsageServiceHandler(server, accountant{s})
	registerHealth(server, s.readiness)

	mux := http.NewServeMux()
	connecthttp.Mount(mux, server,
		connecthttp.WithCodecs(connectproto.NewBinaryCodec(), jsonCodec{connectproto.NewJSONCodec()}),
		connecthttp.WithReadMaxBytes(maxRequest),
		connecthttp.WithCompressMinBytes(minCompressed),
		connecthttp.WithConditionalOptions(func(spec connect.Spec) []connecthttp.Option {
			switch spec.Procedure {
			case weirv1connect.AdminServicePushPluginProcedure, weirv1connect.AdminServicePushModuleProcedure:
				return []connecthttp.Option{connecthttp.WithReadMaxBytes(maxPush)}
			}
			return nil
		}))
	reflector := grpcreflect.NewStaticReflector(weirv1connect.AdminServiceName, weirv1connect.ClusterServiceName, weirv1connect.UsageServiceName, healthService)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	front := http.NewServeMux()
	s.pages(front)
	front.Handle("/", newGuard(config, spoken(mux)))
	return front, nil
}

// service is weir.v1.AdminService, one file for a few methods each.
type service struct {
	Config
	// pushing holds the place of the one module that is sent through the log.
	pushing chan struct{}
}

var _ weirv1connect.AdminServiceHandler = (*service)(nil)
