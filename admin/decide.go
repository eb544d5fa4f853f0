package admin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// How long a call waits for the cluster to decide: several elections where
// there is no leader, and a slow disk's time where there is one. A caller's
// deadline may be sooner; then the last of it, at most answerTime, is left for
// the answer that says why.
const (
	leaderTime   = 10 * time.Second
	decisionTime = time.Minute
	answerTime   = 250 * time.Millisecond
)

func (c Config) deciding(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := decisionTime
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(answerTime, left/10))
	}
	within, cancel := context.WithTimeout(ctx, wait)
	if wait <= leaderTime {
		return within, cancel
	}
	hopeless := time.AfterFunc(leaderTime, func() {
		if status, err := c.Servers.Status(within); err == nil && whyUndecided(status) != "" {
			cancel()
		}
	})
	return within, func() {
		hopeless.Stop()
		cancel()
	}
}

// later is as long as deciding's context, but begins when somebody first waits
// for it: what this member knows by itself costs no timers.
type later struct {
	context.Context // the call's
	begin           func() (context.Context, context.CancelFunc)

	mu     sync.Mutex
	within context.Context // nil: nobody has waited
	cancel context.CancelFunc
}

// decidingLater is deciding for what will hardly ever have to wait.
func (c Config) decidingLater(ctx context.Context) (context.Context, context.CancelFunc) {
	l := &later{Context: ctx, begin: func() (context.Context, context.CancelFunc) { return c.deciding(ctx) }}
	return l, l.end
}

func (l *later) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.within == nil {
		l.within, l.cancel = l.begin()
	}
	return l.within.Done()
}

func (l *later) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.within == nil {
		return l.Context.Err()
	}
	return l.within.Err()
}

func (l *later) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// undecided names the error of a call that was given up by what deciding
// returned: while it waited, nothing was done.
func undecided(ctx context.Context, err error) error {
	ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if ctx.Err() == nil && ended && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// sync waits until what is read next shows all that was decided before.
func (s *service) sync(ctx context.Context) error {
	within, cancel := s.deciding(ctx)
	defer cancel()
	return undecided(ctx, s.Cluster.Sync(within))
}

// current does as sync, unless a stale read is asked for; of that it says how
// old what is read may be, nil when nobody knows.
func (s *service) current(ctx context.Context, stale bool) (*durationpb.Duration, error) {
	if !stale {
		return nil, s.sync(ctx)
	}
	status, err := s.Servers.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status of the cluster: %w", err)
	}
	return status.GetStaleness(), nil
}

// whyUndecided says why a member can have nothing decided; empty: it can.
func whyUndecided(s *weirv1.ClusterStatus) string {
	switch {
	case s.GetRemoved():
		return fmt.Sprintf("member %s was removed from the cluster", s.GetMember())
	case s.GetLeader() == "":
		return "no leader: " + reachableText(s)
	case !s.GetMajority():
		return fmt.Sprintf("no majority behind %s: %s", s.GetLeader(), reachableText(s))
	}
	return s.GetImpaired()
}

func reachableText(s *weirv1.ClusterStatus) string {
	noun := "members"
	if s.GetVoters() == 1 {
		noun = "member"
	}
	return fmt.Sprintf("%d of %d %s reachable", s.GetReachableVoters(), s.GetVoters(), noun)
}

// unavailable is what a caller is told of ErrUnavailable, with the reason where
// this member knows it.
func (s *service) unavailable(ctx context.Context) string {
	why := ""
	if status, err := s.Servers.Status(ctx); err == nil {
		why = whyUndecided(status)
	}
	if why == "" {
		return fmt.Sprintf("%s: nothing was done, try again", ErrUnavailable)
	}
	return fmt.Sprintf("%s (%s): nothing was done", ErrUnavailable, why)
}
