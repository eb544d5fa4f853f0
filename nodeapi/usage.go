package nodeapi

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// ErrUsageRefused: a report of usage makes no sense, now or later.
var ErrUsageRefused = errors.New("usage refused")

// ReportUsage takes what a proxy has counted, under the name that its certificate bears.
func (s *Server) ReportUsage(ctx context.Context, m *weirv1.ReportUsageRequest) (*weirv1.ReportUsageResponse, error) {
	c, err := s.liveProxy(ctx)
	if err != nil {
		return nil, err
	}
	for _, segment := range m.GetSegments() {
		for _, count := range segment.GetCounts() {
			if !c.mayCount(count.GetTenant()) {
				return nil, connect.Errorf(connect.CodePermissionDenied, "%s has no consumers of tenant %q", c.id, count.GetTenant())
			}
		}
	}
	if s.cfg.Usage == nil {
		return nil, connect.NewError(connect.CodeUnavailable, "this server takes no usage")
	}
	err = s.cfg.Usage(ctx, c.node(), m)
	switch {
	case err == nil:
		return new(weirv1.ReportUsageResponse), nil
	case errors.Is(err, ErrUsageRefused):
		s.cfg.Logger.Warn("usage refused", "id", c.id.String(), "address", c.address, "error", err)
		return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	return nil, connect.NewError(connect.CodeUnavailable, "the usage cannot be added now").WithCause(err)
}

// ReportUsage brings what the proxy has counted to a server, any of them. Once it returns
// without an error all of it was added. The error wraps ErrUsageRefused where a server
// will never take it.
func (c *Client) ReportUsage(ctx context.Context, m *weirv1.ReportUsageRequest) error {
	err := c.ask(ctx, func(ctx context.Context, api weirv1connect.NodeServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := api.ReportUsage(ctx, m)
		return err
	})
	if err != nil && saysAll(err, connect.CodeInvalidArgument) {
		return errors.Join(ErrUsageRefused, err)
	}
	return err
}

// saysAll tells whether what each server had to say is of that code, and at least one has
// said something.
func saysAll(err error, code connect.Code) bool {
	all, ok := err.(interface{ Unwrap() []error })
	if !ok {
		var verdict *connect.Error
		return errors.As(err, &verdict) && verdict.IsRemote() && verdict.Code() == code
	}
	said := false
	for _, one := range all.Unwrap() {
		if answered(one) && !saysAll(one, code) {
			return false
		}
		said = said || answered(one)
	}
	return said
}
