package admin

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// hung is a cluster that never decides, of three members of which one is there.
type hung struct {
	Cluster
	outcome error
}

func (h hung) wait(ctx context.Context) error {
	<-ctx.Done()
	return errors.Join(h.outcome, ctx.Err())
}

func (h hung) Sync(ctx context.Context) error { return h.wait(ctx) }

func (h hung) Propose(ctx context.Context, _ *weirv1.Command) (*weirv1.ApplyResponse, error) {
	return nil, h.wait(ctx)
}

type hungServers struct {
	Servers
	status *weirv1.ClusterStatus
}

func (h hungServers) Status(context.Context) (*weirv1.ClusterStatus, error) { return h.status, nil }

// The reason comes before the caller's time is over, and after a while to one
// who has all the time: sooner where there is no leader.
func TestReasonComesInTime(t *testing.T) {
	alone := &weirv1.ClusterStatus{Member: "a", Voters: 3, ReachableVoters: 1}
	led := &weirv1.ClusterStatus{Member: "a", Leader: "b", Majority: true, Voters: 3, ReachableVoters: 3}
	const why = "the cluster cannot decide now (no leader: 1 of 3 members reachable): nothing was done"
	for _, c := range []struct {
		name    string
		timeout time.Duration
		outcome error
		status  *weirv1.ClusterStatus
		after   time.Duration
		code    connect.Code
		words   string
	}{
		{"short", time.Second, nil, alone, 900 * time.Millisecond, connect.CodeUnavailable, why},
		{"long", 8 * time.Second, nil, alone, 7750 * time.Millisecond, connect.CodeUnavailable, why},
		{"none", 0, nil, alone, leaderTime, connect.CodeUnavailable, why},
		{"perhaps done", 0, ErrUnknown, alone, leaderTime, connect.CodeUnknown, "it may have been done"},
		{"slow", 0, nil, led, decisionTime, connect.CodeUnavailable, "the cluster cannot decide now: nothing was done, try again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{Config: Config{Cluster: hung{outcome: c.outcome}, Servers: hungServers{status: c.status}, Logger: slog.New(slog.DiscardHandler)}}
				ctx := t.Context()
				if c.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.timeout)
					defer cancel()
				}
				begun := time.Now()
				_, err := s.Delete(ctx, &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Route", Name: "a"}}})
				err = s.translate(ctx, "Delete", err)
				if took := time.Since(begun); took != c.after {
					t.Errorf("it took %s, not %s", took, c.after)
				}
				if connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.words) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// What the caller broke off is not the cluster's fault.
func TestCallerWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{Config: Config{Cluster: hung{}, Servers: hungServers{}, Logger: slog.New(slog.DiscardHandler)}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := s.translate(ctx, "Sync", s.sync(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
