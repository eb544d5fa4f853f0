//go:build linux

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/linear"
)

// callTime is how long a call may take. A shorter one leaves more outcomes
// unknown; none of them is wrong for it.
const callTime = 2 * time.Second

// client speaks to the admin API of a member, wherever its host is now.
func (c *cluster) client(m *member) weirv1connect.AdminServiceClient {
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := c.outside.Dial(ctx, network, m.adminAddress())
			if err != nil {
				return nil, err
			}
			return c.secure(ctx, conn)
		},
	}
	c.t.Cleanup(transport.CloseIdleConnections)
	return weirv1connect.NewAdminServiceClient(connect.NewClient(
		connecthttp.NewTransport(&http.Client{Transport: authorized{c, transport}}, "https://"+m.name,
			connecthttp.WithReadMaxBytes(64<<20))))
}

// secure is TLS to a member. Its address changes, so it is known by the name
// that all have.
func (c *cluster) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.ca))
	secured := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

type authorized struct {
	c    *cluster
	next http.RoundTripper
}

func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+a.c.token)
	return a.next.RoundTrip(r)
}

// An entry is a key as it was read: a Service with the value in an annotation.
// The revision of one that is not there is 0.
type entry struct {
	value    string
	revision uint64
}

const (
	valueOf = "value"
	// maxPage is what the API lists at once.
	maxPage = 1000
)

// write stores a value, if revision is 0 or still the key's.
func (m *member) write(ctx context.Context, key, value string, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := m.client.Apply(ctx, &weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(&weirv1.Service{
		Metadata: &weirv1.Metadata{Name: key, Revision: revision, Annotations: map[string]string{valueOf: value}},
		Spec:     &weirv1.ServiceSpec{},
	})}})
	return err
}

func (m *member) read(ctx context.Context, key string) (entry, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := m.client.Get(ctx, &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: resource.KindService, Name: key}})
	if connect.CodeOf(err) == connect.CodeNotFound {
		return entry{}, nil
	}
	if err != nil {
		return entry{}, err
	}
	return entryOf(answer.GetResource()), nil
}

func entryOf(r *weirv1.Resource) entry {
	meta := r.GetService().GetMetadata()
	return entry{meta.GetAnnotations()[valueOf], meta.GetRevision()}
}

// list reads all keys; a stale one shows what the member itself has.
func (m *member) list(ctx context.Context, stale bool) (map[string]entry, error) {
	found := map[string]entry{}
	req := &weirv1.ListRequest{Kind: resource.KindService, PageSize: maxPage, Stale: stale}
	for {
		page, err := m.client.List(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range page.GetResources() {
			found[r.GetService().GetMetadata().GetName()] = entryOf(r)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return found, nil
		}
	}
}

// outcomeOf is what an answer to a write says, by the promise of the admin API.
func outcomeOf(err error) linear.Outcome {
	if err == nil {
		return linear.Applied
	}
	var operation *net.OpError
	if errors.As(err, &operation) && operation.Op == "dial" {
		return linear.Refused
	}
	var answered *connect.Error
	if !errors.As(err, &answered) || !answered.IsRemote() {
		return linear.Unknown
	}
	switch answered.Code() {
	case connect.CodeAborted:
		if isConflict(answered) {
			return linear.Mismatch
		}
	case connect.CodeUnavailable, connect.CodeFailedPrecondition, connect.CodeInvalidArgument, connect.CodeUnauthenticated,
		connect.CodeResourceExhausted, connect.CodePermissionDenied:
		return linear.Refused
	}
	return linear.Unknown
}

func isConflict(err *connect.Error) bool {
	for _, detail := range err.Details() {
		m, _ := connectproto.UnmarshalErrorDetail(detail)
		if bad, ok := m.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				if v.GetReason() == "CONFLICT" {
					return true
				}
			}
		}
	}
	return false
}

// isPromised says whether an error is one that a cluster in trouble may give.
func isPromised(err error) bool {
	var answered *connect.Error
	if !errors.As(err, &answered) || !answered.IsRemote() {
		return true // nobody answered
	}
	switch answered.Code() {
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeResourceExhausted:
		return true
	case connect.CodeAborted:
		return isConflict(answered)
	}
	return false
}
