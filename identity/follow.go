package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/weirmesh/weir/identity/record"
)

// FollowConfig is what [Registrar.Follow] is told.
type FollowConfig struct {
	// Every is how often the records are looked at. 0: 2 s.
	Every time.Duration
	// Changed is called when the authority has taken a step, such as to have the
	// server's own certificate renewed. It must not block.
	Changed func(*Authority)
	// Keys are the cluster's, nil: they are not looked after here.
	Keys   *Keys
	Logger *slog.Logger
}

// sweepEvery is how often tokens are swept.
const sweepEvery = 10 * time.Minute

// Follow does what falls due, until ctx ends: it takes the next step of a
// rotation, of the root or of the cluster's key, and forgets old tokens. Every
// member may do so at once; whoever comes second finds it done. Where nothing
// is due nothing is written, and what is read is the member's own state.
func (r *Registrar) Follow(ctx context.Context, cfg FollowConfig) {
	if cfg.Every == 0 {
		cfg.Every = 2 * time.Second
	}
	f := follower{registrar: r, cfg: cfg, epoch: r.Authority().epoch}
	tick := time.NewTicker(cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look(ctx)
		}
	}
}

type follower struct {
	registrar *Registrar
	cfg       FollowConfig
	epoch     uint64
	swept     time.Time
	// said is the last complaint: the same one is not made again and again.
	said string
}

// lookTimeout bounds one look: without a majority a write waits.
const lookTimeout = 10 * time.Second

func (f *follower) look(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := f.step(bounded)
	if ctx.Err() != nil {
		return
	}
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != f.said && err != nil {
		f.cfg.Logger.Warn("identities and keys are not up to date", "error", err)
	}
	f.said = said
}

func (f *follower) step(ctx context.Context) error {
	authority, err := f.registrar.advance(ctx)
	// A restored backup takes the authority back, and is a change like any other.
	if err == nil && authority.epoch != f.epoch {
		f.epoch = authority.epoch
		f.cfg.Logger.Info("authority has changed", "phase", string(authority.phase), "epoch", authority.epoch)
		if f.cfg.Changed != nil {
			f.cfg.Changed(authority)
		}
	}
	if f.cfg.Keys != nil {
		err = errors.Join(err, f.cfg.Keys.Step(ctx))
	}
	if now := time.Now(); now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		err = errors.Join(err, f.registrar.tokens.sweep(ctx, now))
	}
	return err
}

// advance takes the step of a rotation that is due, if one is.
func (r *Registrar) advance(ctx context.Context) (*Authority, error) {
	authority, err := r.refresh(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	steady := authority.phase == PhaseSteady
	if ends := authority.NotAfter(); steady && now.Before(ends.Add(-rotateAhead)) {
		return authority, nil
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	reached := func(epoch uint64) bool { return len(waiting(nodes, epoch)) == 0 }
	if !steady && authority.advance(now, reached) == authority {
		return authority, nil
	}
	return r.stepAuthority(ctx, func(a *Authority) (*Authority, error) {
		if a.epoch != authority.epoch {
			return a, nil // somebody else was quicker
		}
		if steady {
			return a.announce(now)
		}
		return a.advance(now, reached), nil
	})
}

// stepAuthority records what next makes of the authority.
func (r *Registrar) stepAuthority(ctx context.Context, next func(*Authority) (*Authority, error)) (*Authority, error) {
	err := record.Update(ctx, r.records, TableAuthority, authorityKey, func(was []byte) ([]byte, error) {
		if was == nil {
			return nil, errors.New("the cluster has none")
		}
		a, err := OpenAuthority(r.keyring, was)
		if err != nil {
			return nil, err
		}
		b, err := next(a)
		if err != nil || b.epoch == a.epoch {
			return was, err
		}
		return b.Seal(r.keyring)
	})
	if err != nil {
		return nil, fmt.Errorf("change authority: %w", err)
	}
	return r.refresh(ctx)
}

// waiting are the nodes that were given nothing of an epoch yet.
func waiting(nodes []Node, epoch uint64) (names []string) {
	for _, n := range nodes {
		if n.Removed.IsZero() && n.Epoch < epoch {
			names = append(names, string(n.ID.Role)+"/"+n.ID.Name)
		}
	}
	return names
}

// Waits tells whether a rotation of the root waits until a node renews, as far
// as is known here, and returns a channel that is closed when the authority has
// changed since.
func (r *Registrar) Waits(ctx context.Context, id ID) (waits bool, changed <-chan struct{}, err error) {
	o := r.opened.Load()
	if o.authority.phase == PhaseSteady {
		return false, o.over, nil
	}
	known, err := r.node(ctx, id)
	if err != nil {
		return false, o.over, err
	}
	return known != nil && known.Removed.IsZero() && known.Epoch < o.authority.epoch, o.over, nil
}

// RotateRoot begins a rotation of the root. Follow takes it on from there.
func (r *Registrar) RotateRoot(ctx context.Context) error {
	_, err := r.stepAuthority(ctx, func(a *Authority) (*Authority, error) { return a.announce(time.Now()) })
	if err != nil {
		return fmt.Errorf("rotate root: %w", err)
	}
	return nil
}

// Rotation says how far a rotation of the root has come.
func (r *Registrar) Rotation(ctx context.Context) (RotationState, error) {
	authority, err := r.refresh(ctx)
	if err != nil {
		return RotationState{}, err
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return RotationState{}, err
	}
	state := authority.state()
	for _, n := range nodes {
		if n.Removed.IsZero() {
			state.Nodes++
		}
	}
	if authority.phase != PhaseSteady {
		state.Waiting = waiting(nodes, authority.epoch)
	}
	return state, nil
}

var _ Sealed = (*Registrar)(nil)

// Reseal seals the authority by the keyring's first key.
func (r *Registrar) Reseal(ctx context.Context, k *Keyring) error {
	err := record.Update(ctx, r.records, TableAuthority, authorityKey, func(was []byte) ([]byte, error) {
		if by, err := SealedBy(was); err != nil || by == k.ID() {
			return was, err
		}
		data, err := k.Open(authorityPurpose, was)
		if err != nil {
			return nil, err
		}
		return k.Seal(authorityPurpose, data), nil
	})
	if err != nil {
		return fmt.Errorf("seal authority anew: %w", err)
	}
	return nil
}

// SealedBy says which key has sealed the authority.
func (r *Registrar) SealedBy(ctx context.Context) (map[string]int, error) {
	sealed, err := r.records.Get(ctx, TableAuthority, authorityKey)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	id, err := SealedBy(sealed)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	return map[string]int{id: 1}, nil
}
