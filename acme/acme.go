// Package acme orders the certificates that are declared with `acme:`, and
// renews them.
//
//	Certificate ─▶ order ─▶ challenges into the Certificate ─▶ proxies answer
//	      ▲                                                         │
//	      └── chain and key, sealed ◀── the authority (RFC 8555) ◀──┘
//
// It runs at every member, and does something at the one that leads. All that
// must outlast that member is in the cluster's state: accounts with their keys,
// challenges, what was issued. Whoever leads next begins an unfinished order
// anew.
//
// # Promises
//
//   - One member orders for all, and an authority sees one account per directory,
//     address and external account.
//   - What listeners show stays until something better has come, however often
//     an order fails. A failure is told in the Certificate's status, and tried
//     again later and later, as authorities count failures, too.
//   - A certificate is renewed when a third of its life is left, or when its names
//     or its authority are declared otherwise.
//   - The authority is told to look once the proxies that are connected have
//     taken in the challenge.
package acme

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Store is the certificates of the cluster.
type Store interface {
	// Ordered lists those that are declared with `acme:`.
	Ordered() []*weirv1.Certificate
	// Get returns nil for one that is not there.
	Get(resource.Ref) *weirv1.Certificate
	// Put replaces one. [ErrConflict]: it has changed since it was read.
	Put(context.Context, *weirv1.Certificate) error
	// SealKey seals the key of a certificate, OpenHMAC opens that of its external
	// account.
	SealKey(ref resource.Ref, pkcs8 []byte) []byte
	OpenHMAC(ref resource.Ref, sealed []byte) ([]byte, error)
}

// Config of an Issuer.
type Config struct {
	Store    Store
	Accounts *Accounts
	// Leads: this is the member that orders.
	Leads func() bool
	// Spread waits until the proxies that are connected have taken in a
	// revision, or ctx ends.
	Spread func(ctx context.Context, revision uint64)
	Logger *slog.Logger
	// Every is how often the certificates are looked at; 0: 2 s. First is how long
	// it takes until a failed order is tried again, the first time; 0: a minute.
	Every, First time.Duration
}

// Bounds of the work.
const (
	maxOrders    = 4               // under way at once
	orderTimeout = 5 * time.Minute // of one
	spreadTime   = 15 * time.Second
	longestPause = 6 * time.Hour // after many failures
)

// Issuer orders certificates.
type Issuer struct {
	cfg Config

	mu    sync.Mutex
	tries map[resource.Ref]*try
}

// try is what is known of the orders for a certificate.
type try struct {
	running  bool
	failures int
	next     time.Time
	of       [sha256.Size]byte // the declaration: another one is tried at once
	// seen is what the store had the last time, for which of and due hold: to work
	// them out takes more than to see that it is still the same.
	seen *weirv1.Certificate
	due  time.Time // when it is to be ordered, if all goes well
}

// New returns an Issuer; Run makes it work.
func New(cfg Config) *Issuer {
	if cfg.Every == 0 {
		cfg.Every = 2 * time.Second
	}
	if cfg.First == 0 {
		cfg.First = time.Minute
	}
	return &Issuer{cfg: cfg, tries: map[resource.Ref]*try{}}
}

// Run orders what falls due until ctx ends.
func (i *Issuer) Run(ctx context.Context) error {
	var orders sync.WaitGroup
	defer orders.Wait()
	tick := time.NewTicker(i.cfg.Every)
	defer tick.Stop()
	var reign reign
	defer reign.end()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !i.cfg.Leads() {
			reign.end()
			continue
		}
		period := reign.goOn(ctx)
		for _, c := range i.due(time.Now()) {
			orders.Go(func() { i.attempt(period, c) })
		}
	}
}

// reign is a time during which this member leads. Its orders end with it.
type reign struct {
	period context.Context
	cancel context.CancelFunc
}

func (r *reign) goOn(ctx context.Context) context.Context {
	if r.period == nil {
		r.period, r.cancel = context.WithCancel(ctx)
	}
	return r.period
}

func (r *reign) end() {
	if r.period != nil {
		r.cancel()
		r.period = nil
	}
}

// due takes the certificates to order now, as many as there is room for.
func (i *Issuer) due(now time.Time) (due []*weirv1.Certificate) {
	i.mu.Lock()
	defer i.mu.Unlock()
	there := map[resource.Ref]bool{}
	running := 0
	for _, t := range i.tries {
		if t.running {
			running++
		}
	}
	for _, c := range i.cfg.Store.Ordered() {
		ref := refOf(c)
		there[ref] = true
		t := i.tries[ref]
		if t == nil {
			t = new(try)
			i.tries[ref] = t
		}
		if t.seen != c && !t.running {
			t.look(c)
		}
		if !t.running && running < maxOrders && !now.Before(t.next) && now.After(t.due) {
			t.running = true
			running++
			due = append(due, c)
		}
	}
	for ref, t := range i.tries {
		if !there[ref] && !t.running {
			delete(i.tries, ref)
		}
	}
	return due
}

// look takes in what the store has.
func (t *try) look(c *weirv1.Certificate) {
	if declared := digestOf(c); t.of != declared {
		*t = try{of: declared}
	}
	t.seen, t.due = c, dueAt(c)
}

// attempt makes one order, and remembers how it went.
func (i *Issuer) attempt(ctx context.Context, c *weirv1.Certificate) {
	ref := refOf(c)
	log := i.cfg.Logger.With("certificate", ref.String(), "directory", directoryOf(c.GetSpec().GetAcme()))
	bounded, cancel := context.WithTimeout(ctx, orderTimeout)
	leaf, err := i.order(bounded, ref, c)
	cancel()
	if err != nil && ctx.Err() == nil {
		i.tell(ctx, ref, c, err)
	}
	i.mu.Lock()
	t := i.tries[ref]
	t.running = false
	var pause time.Duration
	if err == nil {
		t.failures, t.next = 0, time.Time{}
	} else {
		pause = min(i.cfg.First<<min(t.failures, 20), longestPause)
		t.failures++
		t.next = time.Now().Add(pause)
	}
	i.mu.Unlock()
	switch {
	case err == nil:
		log.Info("certificate issued", "hostnames", strings.Join(resource.NamesOf(leaf), ","), "issuer", leaf.Issuer.String(), "not_after", leaf.NotAfter)
	case ctx.Err() == nil:
		log.Warn("certificate not issued", "error", err, "next_try_in", pause)
	}
}

// tell writes into the Certificate why its order failed.
func (i *Issuer) tell(ctx context.Context, ref resource.Ref, ordered *weirv1.Certificate, problem error) {
	said := problem.Error()
	if len(said) > maxProblem {
		said = said[:maxProblem] + "…"
	}
	said = strings.ToValidUTF8(said, "?")
	err := i.change(ctx, ref, ordered, func(m *weirv1.CertificateMaterial) { m.AcmeProblem, m.Challenges = said, nil })
	if err != nil && ctx.Err() == nil {
		i.cfg.Logger.Warn("what went wrong could not be written down", "certificate", ref.String(), "error", err)
	}
}

const maxProblem = 1000

// dueAt is after when a certificate is to be ordered: at once, where what is shown
// did not come from the declared authority or is not for the declared names; else
// when a third of its life is left.
func dueAt(c *weirv1.Certificate) time.Time {
	m := c.GetMaterial()
	if m.GetAcmeDirectory() != directoryOf(c.GetSpec().GetAcme()) || len(m.GetChain()) == 0 {
		return time.Time{}
	}
	leaf, err := x509.ParseCertificate(m.GetChain()[0])
	if err != nil || !sameNames(resource.NamesOf(leaf), c.GetSpec().GetHostnames()) {
		return time.Time{}
	}
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

func sameNames(a, b []string) bool {
	normal := func(names []string) []string {
		names = slices.Clone(names)
		for i := range names {
			names[i] = strings.ToLower(names[i])
		}
		slices.Sort(names)
		return names
	}
	return slices.Equal(normal(a), normal(b))
}

func directoryOf(a *weirv1.Acme) string {
	if a.GetDirectory() == "" {
		return resource.LetsEncrypt
	}
	return a.GetDirectory()
}

func refOf(c *weirv1.Certificate) resource.Ref { return resource.Of(resource.Wrap(c)) }

// digestOf stands for a declaration.
func digestOf(c *weirv1.Certificate) [sha256.Size]byte {
	return sha256.Sum256(fmt.Append(nil, c.GetSpec().GetHostnames(), c.GetSpec().GetAcme().String()))
}
