package proxy

import (
	"errors"
	"os"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/upstream"
)

// blameCut notes who is to blame that an answer was not delivered whole. It is too
// late for a status to say so, and the error alone may mislead: a client that has
// left is noticed by what the service's side of the exchange, which was cut for it,
// could not read any more. It returns the error to note beside.
func (s *session) blameCut(x *exchange.Exchange, err error) error {
	if err == nil || x.Details != "" || x.Response.Tunnel != nil {
		return err
	}
	var ofPolicy *policy.Error
	failed := s.currentStream().Failed()
	switch {
	case s.life.now().Err() != nil:
		x.Details, err = errGone.Code, errGone
	case errors.As(err, &ofPolicy):
		x.Details = policyError(ofPolicy).Code
	case failed != nil:
		s.serving.judge(true)
		x.Details = upstreamError(&upstream.Error{Sent: true, Timeout: errors.Is(failed, os.ErrDeadlineExceeded), Err: failed}).Code
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.Details = "client_stalled"
	default:
		x.Details = errGone.Code
	}
	return err
}
