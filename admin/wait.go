package admin

import (
	"context"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	defaultWait = 30 * time.Second
	maxWait     = 10 * time.Minute
)

// WaitRevision returns when the proxies are of one mind on a revision: all that
// are connected have accepted it, or one of them has refused it, which time
// will not mend. When time runs out first, it says how far each has come.
func (s *service) WaitRevision(ctx context.Context, req *weirv1.WaitRevisionRequest) (*weirv1.WaitRevisionResponse, error) {
	timeout := defaultWait
	if req.GetTimeout() != nil {
		timeout = req.GetTimeout().AsDuration()
	}
	if timeout < 0 || timeout > maxWait {
		return nil, invalid("timeout", "must be from 0s to %s, not %s", maxWait, timeout)
	}
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	for {
		proxies, changed := s.Proxies.Statuses()
		accepted, refused := mind(proxies, req.GetRevision())
		if accepted || refused {
			return &weirv1.WaitRevisionResponse{Proxies: proxies, Done: accepted}, nil
		}
		select {
		case <-changed:
		case <-expired.C:
			return &weirv1.WaitRevisionResponse{Proxies: proxies}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// mind says whether all connected proxies have accepted a revision, and whether
// one of them has refused it.
func mind(proxies []*weirv1.ProxyStatus, revision uint64) (accepted, refused bool) {
	accepted = true
	for _, p := range proxies {
		if !p.GetConnected() || p.GetRevision() >= revision {
			continue
		}
		accepted = false
		if p.GetRefusedRevision() >= revision {
			refused = true
		}
	}
	return accepted, refused
}
