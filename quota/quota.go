// Package quota is the proxy's side of limits: it admits requests by itself, out of
// blocks of tokens that the servers have leased to it.
//
//	request ─▶ Account.Acquire ─▶ a token of each block ─▶ admitted
//	                        └─▶ block empty ─▶ wait for the answer that is under way
//	Run ─▶ what blocks want, gathered ─▶ Ask (a server; package quota/ledger) ─▶ blocks
//
// # Promises
//
//   - While a block has tokens nobody waits, locks or allocates. It asks for more
//     before it is empty.
//   - What a limit wants is sized by what passes here: a few hundred milliseconds of it.
//     What is not used is given back.
//   - No token is used after its window: that ends by this process's running time,
//     counted from when the request that brought the token was sent.
//   - A limit that is exact admits a request only for a token. One that finds the block
//     empty waits for the servers, as long as [maxWait] and its own deadline; if there is
//     no answer it is [Unavailable], which is not [Exceeded].
//   - A limit that is not exact waits for nobody: what passes beyond the block is
//     counted and told, and ends with the first answer that says that nothing remains.
//     With no server to ask it goes on up to this proxy's share.
//   - Of several limits all give a token or none does.
//
// # Locks
//
// A block's tokens are one atomic number. All else of a limit is under its own mutex,
// which is taken when it asks, hears or waits. The list of those that want to ask has a
// mutex of its own, which is taken last.
package quota

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

const (
	// maxWait is how long a request waits for a token.
	maxWait = 2 * time.Second
	// askTimeout bounds one call: a server may be electing its leader.
	askTimeout = 2 * time.Second
	// gathering is how long what wants to ask waits for others that do, and leisure how
	// long while nobody waits for the answer.
	gathering = time.Millisecond
	leisure   = 5 * time.Millisecond
	// maxAsks is how many are in one call.
	maxAsks = 512
	// maxCalls bounds the calls that are under way.
	maxCalls = 4
	// ahead is how much of what passes a block is to last for.
	ahead = 400 * time.Millisecond
	// again is when a limit of which nothing remains is asked about once more, if
	// others still hold some.
	again = 500 * time.Millisecond
	// backoff is how long no limit asks after a call has failed; it doubles up to the
	// most with each that fails.
	backoff     = 250 * time.Millisecond
	mostBackoff = 2 * time.Second
	// housekeeping is how often blocks that are not used are looked for.
	housekeeping = 500 * time.Millisecond
	// unused is how long a block is kept that nobody takes from, and forgotten how long
	// a limit, and an account.
	unused    = 3 * time.Second
	forgotten = 5 * time.Minute
	sweeping  = 30 * time.Second
	// maxWaiters bounds the requests that wait, of one limit and of all.
	maxWaiters    = 1024
	maxAllWaiters = 16 << 10
)

// Asker asks the servers, whichever is there.
type Asker func(context.Context, *weirv1.LeaseTokensRequest) (*weirv1.LeaseTokensResponse, error)

// Client holds this proxy's blocks. Make it with [New]; Run has it ask.
type Client struct {
	log   *slog.Logger
	epoch uint64
	base  time.Time
	ask   atomic.Pointer[Asker]

	accounts sync.Map // *exchange.Consumer to *Account
	waiting  atomic.Int64
	// asleep is until when no limit asks, since a call has failed; 0: none has.
	asleep atomic.Int64
	pause  atomic.Int64 // how long it is then
	rtt    atomic.Int64
	// urgent: something in the queue is of a limit that has no token.
	urgent atomic.Bool
	meters meters

	mu     sync.Mutex
	limits map[key]*limit
	swept  int64

	queue struct {
		sync.Mutex
		wanting []*limit
	}
	wake chan struct{}

	// Run's own.
	sequence uint64
	scanned  []*limit
}

type key struct{ tenant, subscription, limit string }

// New makes a client that asks nobody yet; see [Client.Through].
func New(log *slog.Logger) *Client {
	return &Client{
		log: log, epoch: rand.Uint64() | 1, base: time.Now(), limits: map[key]*limit{}, wake: make(chan struct{}, 1),
	}
}

// Through says by whom the servers are asked from now on.
func (c *Client) Through(ask Asker) { c.ask.Store(&ask) }

// now is this process's running time in nanoseconds.
func (c *Client) now() int64 { return int64(time.Since(c.base)) }

// Account is the limits of one consumer, here.
type Account struct {
	client *Client
	limits []*limit
	terms  []exchange.Limit
	policy string // RateLimit-Policy
	used   atomic.Int64
}

// Account finds a consumer's. The pointer is what it is known by: consumers are
// shared and do not change.
func (c *Client) Account(consumer *exchange.Consumer) *Account {
	if a, ok := c.accounts.Load(consumer); ok {
		return a.(*Account)
	}
	a := &Account{client: c, terms: consumer.Limits, policy: policyField(consumer.Limits)}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range consumer.Limits {
		k := key{consumer.Tenant, consumer.Subscription, l.Name}
		known := c.limits[k]
		if known == nil {
			known = &limit{client: c, key: k, answered: make(chan struct{}), holders: 1}
			c.limits[k] = known
		}
		known.declare(l)
		a.limits = append(a.limits, known)
	}
	a.used.Store(c.now())
	kept, _ := c.accounts.LoadOrStore(consumer, a)
	return kept.(*Account)
}

// Outcome is what a request is told.
type Outcome uint8

// The outcomes.
const (
	// Admitted: a token of each limit is taken.
	Admitted Outcome = iota
	// Exceeded: nothing remains of a limit in its window.
	Exceeded
	// Unavailable: nobody can say.
	Unavailable
	// Left: whoever asked has left, or has no more time.
	Left
)

// Decision is an outcome. Limit is the one that was not admitted, and After when
// another try makes sense.
type Decision struct {
	Outcome Outcome
	Limit   string
	After   time.Duration
}

// Acquire takes a token of each limit, or none. It waits no longer than until the
// deadline, which may be zero, and until done is closed, which may be nil.
func (a *Account) Acquire(deadline time.Time, done <-chan struct{}) Decision {
	now := a.client.now()
	a.used.Store(now)
	if l := a.take(now); l != nil {
		return a.wait(l, now, deadline, done)
	}
	return Decision{}
}

// take takes of all, or of none, and returns the limit that gave none.
func (a *Account) take(now int64) *limit {
	var few [8]*block
	took := few[:0]
	for _, l := range a.limits {
		b := l.take(now)
		if b == nil {
			// Each token goes back to where it is from: a window may have ended.
			for _, b := range took {
				b.left.Add(1)
			}
			return l
		}
		took = append(took, b)
	}
	return nil
}

// wait goes on where a limit gave none.
func (a *Account) wait(l *limit, began int64, deadline time.Time, done <-chan struct{}) Decision {
	var patience *time.Timer
	for {
		d, answered := l.refusal()
		if d.Outcome != Admitted {
			a.client.meters.count(d.Outcome)
			return d
		}
		if answered != nil {
			if patience == nil {
				most := maxWait
				if !deadline.IsZero() {
					most = min(most, time.Until(deadline))
				}
				patience = time.NewTimer(most - time.Duration(a.client.now()-began))
				defer patience.Stop()
				a.client.meters.waits.Add(1)
			}
			select {
			case <-answered:
				l.leave()
			case <-patience.C:
				l.leave()
				return a.tired(l, deadline)
			case <-done:
				l.leave()
				return Decision{Outcome: Left, Limit: l.key.limit}
			}
		}
		if l = a.take(a.client.now()); l == nil {
			return Decision{}
		}
	}
}

// tired is for one that has waited in vain.
func (a *Account) tired(l *limit, deadline time.Time) Decision {
	d := Decision{Outcome: Unavailable, Limit: l.key.limit, After: time.Second}
	if !deadline.IsZero() && !time.Now().Before(deadline) {
		d.Outcome = Left
	}
	a.client.meters.count(d.Outcome)
	return d
}
