package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
)

// guard stands before every call, and before any of its body is read.
//
// A caller shows a token, or stands on this host where that is allowed. The
// latter is as much as the browser of someone on this host can do for any web
// page, so a page's request is refused: one that says it comes from another
// origin, and one for a host name that is not this host's, which a page gets by
// letting its own name point here (DNS rebinding). What a reverse proxy passes
// on is not from this host either.
type guard struct {
	config Config
	next   http.Handler
	errors *connecthttp.ErrorWriter
	origin *http.CrossOriginProtection
}

func newGuard(config Config, next http.Handler) *guard {
	return &guard{config: config, next: next, errors: connecthttp.NewErrorWriter(), origin: http.NewCrossOriginProtection()}
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := g.origin.Check(r); err != nil {
		g.refuse(w, r, connect.NewError(connect.CodePermissionDenied, "a web page of another origin may not call the admin API"))
		return
	}
	if strings.HasPrefix(r.URL.Path, "/"+healthService+"/") {
		g.next.ServeHTTP(w, r)
		return
	}
	actor, err := g.authenticate(r)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	g.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
}

// refuse answers in the protocol of the call: an HTTP status for JSON, a
// grpc-status for gRPC.
func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err *connect.Error) {
	if err.Code() == connect.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
	}
	if err := g.errors.Write(w, r, err); err != nil {
		g.config.Logger.Debug("admin answer was not taken", "error", err)
	}
}

func (g *guard) authenticate(r *http.Request) (string, *connect.Error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return g.admitLoopback(r)
	}
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", connect.NewError(connect.CodeUnauthenticated, "the Authorization header must be: Bearer TOKEN")
	}
	if g.config.Tokens == nil {
		return "", connect.NewError(connect.CodeUnauthenticated, "the token is not known: this server knows none (unset WEIR_TOKEN)")
	}
	within, cancel := g.config.decidingLater(r.Context())
	defer cancel()
	actor, err := g.config.Tokens.Authenticate(within, token)
	switch {
	case errors.Is(err, ErrNoSuchToken):
		return "", connect.NewError(connect.CodeUnauthenticated, "the token is not known, or has expired")
	case err != nil:
		g.config.Logger.Warn("admin token could not be checked", "error", err)
		return "", connect.NewError(connect.CodeUnavailable, "the token cannot be checked now").WithCause(err)
	}
	return actor, nil
}

func (g *guard) admitLoopback(r *http.Request) (string, *connect.Error) {
	if !g.config.AllowLoopback || !isLoopback(r.RemoteAddr) || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return "", connect.NewError(connect.CodeUnauthenticated, "a token is needed (WEIR_TOKEN, or --token)")
	}
	if !isLoopback(r.Host) {
		return "", connect.Errorf(connect.CodePermissionDenied,
			"without a token only calls for localhost are admitted, not for the host %q", r.Host)
	}
	return "loopback", nil
}

// isLoopback: a host, with or without a port, that is always this one.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && address.Unmap().IsLoopback()
}

type actorKey struct{}

// Actor is who makes a call that the guard let through.
func Actor(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}
