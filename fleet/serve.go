package fleet

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectgzip"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	// maxWait bounds how long a question may wait for news.
	maxWait = 10 * time.Second
	// maxRequest is far more than a question needs, maxReport more than the
	// statuses of all proxies that a server takes.
	maxRequest = 4 << 10
	maxReport  = 64 << 20
	// What is shorter is not worth packing.
	compressFrom = 4 << 10
)

func fastGzip() connecthttp.Option {
	return connecthttp.WithCompressors(connectgzip.New(connectgzip.WithLevel(1)))
}

// Handler answers other servers, on a port that asks for certificates. What it
// is asked before the fleet runs waits.
func (f *Fleet) Handler() (path string, handler http.Handler) {
	rpc := connect.NewServer()
	weirv1connect.RegisterPeerServiceHandler(rpc, service{f})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc, connecthttp.WithReadMaxBytes(maxRequest), connecthttp.WithCompressMinBytes(compressFrom), fastGzip())
	return "/" + weirv1connect.PeerServiceName + "/", f.identify(mux)
}

type callerKey struct{}

// caller is who asks, or why that is not known.
type caller struct {
	id  identity.ID
	err error
}

// identify looks at the certificate with each question: a connection may
// outlive it.
func (f *Fleet) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c caller
		if r.TLS == nil {
			c.err = errNoTLS
		} else {
			c.id, c.err = f.cfg.Identity.Verify(r.TLS.PeerCertificates)
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

var errNoTLS = connect.NewError(connect.CodeUnauthenticated, "this call needs a certificate of this cluster")

type service struct{ fleet *Fleet }

// Report waits for news, unless there is some.
func (s service) Report(ctx context.Context, m *weirv1.ReportRequest) (*weirv1.ReportResponse, error) {
	c, known := ctx.Value(callerKey{}).(caller)
	switch {
	case !known:
		return nil, errNoTLS
	case c.err != nil:
		return nil, connect.NewError(connect.CodeUnauthenticated, c.err.Error())
	case c.id.Role != identity.RoleServer:
		return nil, connect.Errorf(connect.CodePermissionDenied, "%s is no server", c.id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// It ends a context: nobody has to wait for that.
	defer context.AfterFunc(s.fleet.life, cancel)()
	answer := s.fleet.board.await(ctx, m.GetAfter(), min(max(m.GetWait().AsDuration(), 0), maxWait))
	switch {
	case s.fleet.life.Err() != nil:
		return nil, connect.NewError(connect.CodeUnavailable, "the server is stopping")
	case answer == nil:
		return nil, connect.NewError(connect.CodeUnavailable, "the server is starting")
	}
	return answer, nil
}
