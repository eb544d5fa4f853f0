package nodeapi

import (
	"context"
	"crypto"
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

var _ weirv1connect.NodeServiceHandler = (*Server)(nil)

// maxName is as long as a label may be, and then some for the error to show.
const maxName = 256

// caller is who sent a request, by its connection.
type caller struct {
	known   bool // it presented a certificate of this cluster
	id      identity.ID
	key     crypto.PublicKey
	expires time.Time
	retired bool // the certificate is of a root that was given up
	address string
	// hangUp makes the caller's half of the stream end.
	hangUp func()
	// writeBy sets the deadline for all that is written to the caller; written tells
	// whether all has been.
	writeBy func(time.Time) error
	written func() error
}

type callerKey struct{}

// identify puts the caller into the request's context. Handshakes with foreign
// certificates have failed before; here it is seen whose a good one is.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := &gathering{ResponseWriter: w}
		c := &caller{
			address: r.RemoteAddr,
			hangUp:  func() { _ = r.Body.Close() },
			writeBy: http.NewResponseController(w).SetWriteDeadline,
			written: func() error { return g.err },
		}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			id, err := s.cfg.Identity.Verify(r.TLS.PeerCertificates)
			if identity.MayRenew(err) {
				leaf := r.TLS.PeerCertificates[0]
				c.retired = errors.Is(err, identity.ErrRetired)
				c.known, c.id, c.key, c.expires = true, id, leaf.PublicKey, leaf.NotAfter
			}
		}
		next.ServeHTTP(g, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
		_ = g.release() // who has left needs no answer
	})
}

// anyNode is the caller if it is a node of this cluster, even one whose
// certificate has run out.
func anyNode(ctx context.Context) (*caller, error) {
	c, _ := ctx.Value(callerKey{}).(*caller)
	if c == nil || !c.known {
		return nil, connect.NewError(connect.CodeUnauthenticated, "this call needs a certificate of this cluster")
	}
	return c, nil
}

// liveNode is the caller if its certificate is good today.
func liveNode(ctx context.Context) (*caller, error) {
	c, err := anyNode(ctx)
	if err != nil {
		return nil, err
	}
	if c.retired {
		return nil, connect.Errorf(connect.CodeUnauthenticated, "the certificate of %s is of a root that was given up; renew it first", c.id)
	}
	if time.Now().After(c.expires) {
		return nil, connect.Errorf(connect.CodeUnauthenticated, "the certificate of %s expired on %s; renew it first",
			c.id, c.expires.UTC().Format(time.RFC3339))
	}
	return c, nil
}

// node is what the caller is called among those who lease and report.
func (c *caller) node() string { return string(c.id.Role) + "/" + c.id.Name }

// liveProxy is the caller if it is a proxy, too, and was not removed: nothing is sent to
// one that was, and nothing taken from it.
func (s *Server) liveProxy(ctx context.Context) (*caller, error) {
	c, err := liveNode(ctx)
	if err != nil {
		return nil, err
	}
	if c.id.Role == identity.RoleServer {
		return nil, connect.Errorf(connect.CodePermissionDenied, "%s is no proxy", c.id)
	}
	return c, s.check(ctx, c)
}

// check refuses who was removed, or has lost the name to another.
func (s *Server) check(ctx context.Context, c *caller) error {
	if err := s.cfg.Registrar.Check(ctx, c.id, c.key); err != nil {
		return s.refuse(c, err)
	}
	return nil
}

// Join is open to all; the token decides.
func (s *Server) Join(ctx context.Context, m *weirv1.JoinRequest) (*weirv1.JoinResponse, error) {
	log := s.cfg.Logger.With("name", truncate(m.GetName(), maxName), "address", addressOf(ctx))
	admitted, err := s.cfg.Registrar.Join(ctx, identity.JoinRequest{
		Token: m.GetToken(), Name: m.GetName(), Role: identity.Role(m.GetRole()), CSR: m.GetCsr(),
	}, s.inUse)
	if err != nil {
		log.Warn("node not admitted", "error", err)
		return nil, joinError(err)
	}
	log.Info("node admitted", "id", admitted.ID.String())
	return &weirv1.JoinResponse{Credentials: admitted.Credentials, Keyring: admitted.Keyring}, nil
}

// inUse tells whether a node of that name has a stream open, here or at another server:
// whoever joins may ask at any.
func (s *Server) inUse(id identity.ID) bool {
	return s.proxies.Connected(id) || s.cfg.Elsewhere != nil && s.cfg.Elsewhere(id.Name)
}

func joinError(err error) error {
	// Who has the token's own secret may know what became of it.
	for _, why := range []error{identity.ErrTokenExpired, identity.ErrTokenRevoked, identity.ErrTokenUsed} {
		if errors.Is(err, why) {
			return connect.NewError(connect.CodeUnauthenticated, why.Error()).WithCause(err)
		}
	}
	if errors.Is(err, identity.ErrToken) {
		// Why is nobody's business who has no good token.
		return connect.NewError(connect.CodeUnauthenticated, "the join token is not valid, or no longer").WithCause(err)
	}
	switch {
	case errors.Is(err, identity.ErrRequest):
		return connect.NewError(connect.CodeInvalidArgument, err.Error())
	case errors.Is(err, identity.ErrInUse):
		return connect.NewError(connect.CodeAlreadyExists, err.Error())
	}
	return connect.NewError(connect.CodeUnavailable, "the node cannot be recorded now").WithCause(err)
}

// Renew takes even an expired certificate: the key behind it is what counts.
func (s *Server) Renew(ctx context.Context, m *weirv1.RenewRequest) (*weirv1.RenewResponse, error) {
	c, err := anyNode(ctx)
	if err != nil {
		return nil, err
	}
	issued, err := s.cfg.Registrar.Renew(ctx, c.id, c.key, m.GetCsr())
	if err != nil {
		return nil, s.refuse(c, err)
	}
	return &weirv1.RenewResponse{Credentials: issued}, nil
}

// refuse logs and translates why a node that joined once is not served.
func (s *Server) refuse(c *caller, err error) error {
	s.cfg.Logger.Warn("node refused", "id", c.id.String(), "address", c.address, "error", err)
	switch {
	case errors.Is(err, identity.ErrRemoved), errors.Is(err, identity.ErrSuperseded):
		return connect.NewError(connect.CodePermissionDenied, err.Error())
	case errors.Is(err, identity.ErrRequest):
		return connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	return connect.NewError(connect.CodeUnavailable, "the node cannot be looked up now").WithCause(err)
}

// blobChunk is how much of a blob travels in one message.
const blobChunk = 256 << 10

// GetBlob streams content to any node that asks for it by its digest. It holds
// one part of it at a time: after a push, all proxies ask at once.
func (s *Server) GetBlob(ctx context.Context, m *weirv1.GetBlobRequest, stream weirv1connect.NodeServiceGetBlobServerStream) error {
	c, err := liveNode(ctx)
	if err == nil {
		err = s.check(ctx, c)
	}
	if err != nil {
		return err
	}
	blob := s.cfg.Source.Blob(m.GetDigest())
	if blob == nil {
		return connect.Errorf(connect.CodeNotFound, "there is no blob %s", truncate(m.GetDigest(), maxName))
	}
	limit := c.limit(s.sendTimeout)
	defer c.lastWords(s.sendTimeout)
	part := make([]byte, blobChunk)
	for {
		n, err := io.ReadFull(blob, part)
		if n > 0 {
			err := limit.hold(func() error {
				return errors.Join(stream.Send(&weirv1.GetBlobResponse{Chunk: part[:n]}), c.written())
			})
			if err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			s.cfg.Logger.Error("blob not read", "digest", m.GetDigest(), "error", err)
			return connect.NewError(connect.CodeUnavailable, "the blob cannot be read now")
		}
	}
}

func addressOf(ctx context.Context) string {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return c.address
	}
	return ""
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
