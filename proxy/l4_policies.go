package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/relay"
)

// throughPolicies carries a connection that policies see. They see that there is a
// client before there is a connection to the service, and may let it wait.
func (c *connection) throughPolicies(ctx context.Context, chain *policy.Chain) endedBy {
	c.policies = chain.Connect(&c.x)
	defer c.policies.Close()
	if err := c.policies.Open(ctx); err != nil {
		return outcome(ctx, err)
	}
	end := c.carry(ctx)
	if c.counts.Out.And == nil { // there was none to a service
		c.policies.Disconnected(policy.Downstream, false)
	}
	return end
}

// carryTapped is carry's relay with the policies in it.
func (c *connection) carryTapped(ctx context.Context, service relay.Side) endedBy {
	t := &tap{policies: c.policies}
	err := relay.RunTapped(ctx, c.client, service, c.rule.idle, &c.counts, t, c.said)
	c.said = nil
	c.policies.Disconnected(policy.Downstream, t.ended[policy.Downstream].Load())
	c.policies.Disconnected(policy.Upstream, t.ended[policy.Upstream].Load())
	return outcome(ctx, err)
}

// tap is the policies of a connection, for a relay.
type tap struct {
	policies *policy.Connection
	ended    [2]atomic.Bool // by that side itself
}

// Attach implements relay.Tap.
func (t *tap) Attach(wakeClient, wakeService func()) { t.policies.Attach(wakeClient, wakeService) }

// FromClient implements relay.Tap.
func (t *tap) FromClient(piece []byte, end bool) ([]byte, bool, error) {
	return t.pass(policy.Downstream, piece, end)
}

// FromService implements relay.Tap.
func (t *tap) FromService(piece []byte, end bool) ([]byte, bool, error) {
	return t.pass(policy.Upstream, piece, end)
}

// Broken implements relay.Tap.
func (t *tap) Broken(client bool) {
	d := policy.Upstream
	if client {
		d = policy.Downstream
	}
	t.ended[d].Store(true)
}

func (t *tap) pass(d policy.Direction, piece []byte, end bool) ([]byte, bool, error) {
	if end {
		t.ended[d].Store(true)
	}
	out, ended, err := t.policies.Pass(d, piece, end)
	if errors.Is(err, policy.ErrClosed) {
		err = fmt.Errorf("%w: %w", err, relay.ErrEnded)
	}
	return out, ended, err
}

// isFailure says that a policy has failed.
func isFailure(err error) bool {
	var failed *policy.Error
	return errors.As(err, &failed)
}
