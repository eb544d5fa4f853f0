package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// silent: the last call has failed, and none has succeeded since.
func (c *Client) silent() bool { return c.asleep.Load() != 0 }

// enqueue has a limit ask, whose wants is set.
func (c *Client) enqueue(l *limit) {
	c.queue.Lock()
	c.queue.wanting = append(c.queue.wanting, l)
	c.queue.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// next takes those that want to ask, as many as go into a call.
func (c *Client) next() []*limit {
	c.queue.Lock()
	defer c.queue.Unlock()
	n := min(len(c.queue.wanting), maxAsks)
	batch := append([]*limit(nil), c.queue.wanting[:n]...)
	c.queue.wanting = c.queue.wanting[n:]
	if len(c.queue.wanting) == 0 {
		c.queue.wanting = nil
	}
	return batch
}

// Run asks the servers for what limits want, until ctx ends. Then it gives back what is
// left, if a server hears of it soon.
func (c *Client) Run(ctx context.Context) error {
	calls := make(chan struct{}, maxCalls)
	var calling sync.WaitGroup
	defer c.giveUp(ctx)
	defer calling.Wait()
	house := time.NewTicker(housekeeping)
	defer house.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-house.C:
			c.keepHouse()
			continue
		case <-c.wake:
		}
		for waited := time.Duration(0); waited < leisure; waited += gathering {
			if !pauseFor(ctx, gathering) {
				return ctx.Err()
			}
			if c.urgent.Load() {
				break
			}
		}
		c.urgent.Store(false)
		for batch := c.next(); len(batch) > 0; batch = c.next() {
			select {
			case calls <- struct{}{}:
			case <-ctx.Done():
				c.unanswered(batch)
				return ctx.Err()
			}
			c.sequence++
			sequence := c.sequence
			calling.Go(func() {
				c.call(ctx, batch, sequence)
				<-calls
			})
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// call asks for a batch, and has each of it hear the answer.
func (c *Client) call(ctx context.Context, batch []*limit, sequence uint64) {
	asked := c.now()
	m := &weirv1.LeaseTokensRequest{Epoch: c.epoch, Sequence: sequence}
	questions := make([]question, len(batch))
	for i, l := range batch {
		questions[i] = l.question(asked, sequence)
		m.Asks = append(m.Asks, questions[i].ask)
	}
	asked = c.now()
	answer, err := c.send(ctx, m)
	c.told(err, c.now()-asked, ctx)
	for i, q := range questions {
		var g *weirv1.LeaseGrant
		if err == nil {
			g = answer.GetGrants()[i]
		}
		q.limit.hear(q, g, asked)
	}
}

func (c *Client) send(ctx context.Context, m *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error) {
	ask := c.ask.Load()
	if ask == nil {
		return nil, errors.New("there is nobody to ask yet")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := (*ask)(ctx, m)
	if err == nil && len(answer.GetGrants()) != len(m.GetAsks()) {
		err = fmt.Errorf("%d answers to %d asks", len(answer.GetGrants()), len(m.GetAsks()))
	}
	return answer, err
}

// told keeps what a call has shown of the servers.
func (c *Client) told(err error, took int64, ctx context.Context) {
	if err == nil {
		c.meters.calls.Add(1)
		c.rtt.Store((3*c.rtt.Load() + took) / 4)
		c.pause.Store(0)
		if c.asleep.Swap(0) != 0 {
			c.log.Info("limits are leased again")
		}
		return
	}
	c.meters.failures.Add(1)
	pause := min(max(2*c.pause.Load(), int64(backoff)), int64(mostBackoff))
	c.pause.Store(pause)
	if c.asleep.Swap(c.now()+pause/2+rand.Int64N(pause)) == 0 && ctx.Err() == nil {
		c.log.Warn("limits cannot be leased: what is exact is refused once the blocks here are used up", "error", err)
	}
}

// unanswered is for those that were about to ask.
func (c *Client) unanswered(batch []*limit) {
	for _, l := range batch {
		l.hear(question{limit: l}, nil, 0)
	}
}

// keepHouse gives back what is not used, and forgets who has not come for long.
func (c *Client) keepHouse() {
	now := c.now()
	c.mu.Lock()
	c.scanned = c.scanned[:0]
	for _, l := range c.limits {
		c.scanned = append(c.scanned, l)
	}
	c.mu.Unlock()
	for _, l := range c.scanned {
		if l.tidy(now) {
			c.enqueue(l)
		}
	}
	clear(c.scanned) // what is forgotten is not kept by it
	c.forget(now)
}

func (c *Client) forget(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now < c.swept+int64(sweeping) {
		return
	}
	c.swept = now
	used := map[*limit]bool{}
	c.accounts.Range(func(consumer, a any) bool {
		if a := a.(*Account); now-a.used.Load() > int64(forgotten) {
			c.accounts.Delete(consumer)
		} else {
			for _, l := range a.limits {
				used[l] = true
			}
		}
		return true
	})
	for k, l := range c.limits {
		if !used[l] && l.idle(now) {
			delete(c.limits, k)
		}
	}
}

// giveUp gives back what is left of all, at the end.
func (c *Client) giveUp(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sequence++
	m := &weirv1.LeaseTokensRequest{Epoch: c.epoch, Sequence: c.sequence}
	now := c.now()
	for _, l := range c.limits {
		if len(m.Asks) == maxAsks {
			break // the most that a server takes; there is no time for more
		}
		l.mu.Lock()
		if b := l.block.Load(); b.open(now) && b.left.Load() > 0 {
			if left := b.left.Load(); b.left.CompareAndSwap(left, 0) {
				b.held -= left
				l.returns = true
			}
		}
		returns := l.returns
		l.mu.Unlock()
		if returns {
			q := l.question(now, c.sequence)
			q.ask.Want = 0
			m.Asks = append(m.Asks, q.ask)
		}
	}
	if len(m.Asks) == 0 {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	_, _ = c.send(last, m) // nobody could do anything about it: it is lost for this window
}

// lastWords bounds the call at the end.
const lastWords = 500 * time.Millisecond
