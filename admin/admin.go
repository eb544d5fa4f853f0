// Package admin is the admin API: how people and programs declare, read and
// follow what Weir does. It serves weir.v1.AdminService as gRPC, gRPC-Web and
// JSON over HTTP on one port, with reflection and health beside it.
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
)

// Config is what the API is made of. Store, Cluster, Proxies, Admission and
// JoinTokens are required.
type Config struct {
	Store      Store
	Cluster    Cluster
	Proxies    Proxies
	Admission  Admission
	JoinTokens JoinTokens

	// Sealer seals the keys of Certificates. Without it none can be declared.
	Sealer Sealer
	// Tokens knows the bearer tokens. Without it none is known.
	Tokens Authenticator
	// AllowLoopback admits callers of this host without a token.
	AllowLoopback bool

	// Ready says whether this member can serve, for the health service. Nil:
	// it can.
	Ready func() error

	// Logger gets a line for each change. Nil: slog.Default.
	Logger  *slog.Logger
	Version string
}

func (c Config) validate() error {
	var missing []error
	for name, present := range map[string]bool{
		"Store": c.Store != nil, "Cluster": c.Cluster != nil, "Proxies": c.Proxies != nil,
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
	registerHealth(server, config.Ready)

	mux := http.NewServeMux()
	connecthttp.Mount(mux, server,
		connecthttp.WithCodecs(connectproto.NewBinaryCodec(), jsonCodec{connectproto.NewJSONCodec()}),
		connecthttp.WithReadMaxBytes(maxRequest),
		connecthttp.WithConditionalOptions(func(spec connect.Spec) []connecthttp.Option {
			if spec.Procedure == weirv1connect.AdminServicePushPluginProcedure {
				return []connecthttp.Option{connecthttp.WithReadMaxBytes(maxPush)}
			}
			return nil
		}))
	reflector := grpcreflect.NewStaticReflector(weirv1connect.AdminServiceName, healthService)
	mux.Handle(grpcreflect.NewHandlerV1(reflector))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector))
	return newGuard(config, spoken(mux)), nil
}

// service is weir.v1.AdminService, one file for a few methods each.
type service struct {
	Config
	// pushing holds the place of the one module that is sent through the log.
	pushing chan struct{}
}

var _ weirv1connect.AdminServiceHandler = (*service)(nil)
