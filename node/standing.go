package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
)

// network is the streams between servers as the cluster sees them.
type network struct{ *nodeport.Members }

func (n network) Dial(ctx context.Context, address, member string) (net.Conn, error) {
	conn, err := n.Members.Dial(ctx, address, member)
	var refused *nodeport.RefusedError
	if errors.As(err, &refused) {
		err = fmt.Errorf("%w: %s", cluster.ErrRefused, refused.Reason)
	}
	return conn, err
}

// refuseServer says why a server that has a certificate of the cluster is none of
// it any more.
func (s *server) refuseServer(leaf *x509.Certificate) error {
	own := s.opened.Load()
	if own == nil {
		return nil // nor are its streams heard yet
	}
	return identity.CheckServer(own.View(), leaf)
}

const (
	lookAtStanding = 500 * time.Millisecond
	// withoutLeader is for how long a server may know no leader before it sends its
	// proxies to look for one: more than an election takes. With what they take to go
	// elsewhere it is less than the 9 s after which the leader takes their sidecars for
	// gone: the others find a server silent after 5 s, and absence follows.
	withoutLeader = 3 * time.Second
)

// unled watches whether a server knows a leader.
type unled struct{ led time.Time }

// long tells whether it has known none for long.
func (u *unled) long(leader string, now time.Time) bool {
	if leader != "" {
		u.led = now
	}
	return now.Sub(u.led) >= withoutLeader
}

// mindStanding sends proxies to other servers once this one was removed, since it hears
// nothing new any more, and while it knows no leader, since then nobody hears of them.
// The process stays, to say so to whoever asks it.
func (s *server) mindStanding(ctx context.Context) error {
	ticker := time.NewTicker(lookAtStanding)
	defer ticker.Stop()
	alone := unled{time.Now()}
	for {
		select {
		case now := <-ticker.C:
			s.api.TurnAway(s.cluster.Outcast() != "")
			s.api.Leaderless(alone.long(s.cluster.Leader(), now))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
