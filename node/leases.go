package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/cluster"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// leases has the log decide what proxies ask for of limits. Each request is a command
// of its own; the log gathers what comes within a moment into one entry.
type leases struct {
	cluster *cluster.Node
	// source is this process, which has run since it began.
	source string
	began  time.Time
}

func newLeases(c *cluster.Node, name string) leases {
	return leases{c, name + "-" + rand.Text(), time.Now()}
}

// Grant implements nodeapi.Leases.
func (l leases) Grant(ctx context.Context, node string, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
	now := time.Now()
	result, err := l.cluster.Propose(ctx, &weirv1.Command{
		Time: timestamppb.New(now), Actor: node,
		Action: &weirv1.Command_GrantLeases{GrantLeases: &weirv1.GrantLeases{
			Source: l.source, Elapsed: durationpb.New(now.Sub(l.began)), Node: node, Request: m,
		}},
	})
	if err != nil {
		return nil, err
	}
	switch r := result.(type) {
	case *weirv1.LeaseTokensResponse:
		return r, nil
	case *store.RefusedError:
		return nil, fmt.Errorf("grant leases: %w", r)
	}
	return nil, fmt.Errorf("grant leases: the result is %v", result)
}
