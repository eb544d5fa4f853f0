package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weirmesh/weir/identity/record"
)

// Keys changes the cluster's key without a pause. Which key seals is recorded
// for all; each member reports what its own keyring holds, and follows:
//
//	NEXT ──every member holds it──▶ SEALS ──another does──▶ OPENS ──dropped──▶ DROPPED
//
// A new key travels in the records, sealed by the one before it, for as long as
// members wait for it and no longer. One that an operator puts into the
// keyring files himself never does: that is the way when the old key is known
// to others, or when systemd hands the files over.
type Keys struct {
	cfg KeysConfig
}

// KeysConfig is what Keys needs. All but Sealed is required.
type KeysConfig struct {
	Records Records
	Keyring *Keyring
	// Member is this server's name, Members are those of the cluster, this one
	// among them.
	Member  string
	Members func() []string
	// Sealed are the things in the log that the keyring has sealed.
	Sealed []Sealed
}

// Sealed are things in the log that a cluster's keyring has sealed.
type Sealed interface {
	// Reseal seals by the keyring's first key what another one has sealed.
	Reseal(ctx context.Context, k *Keyring) error
	// SealedBy counts them by the names of the keys that have sealed them.
	SealedBy(ctx context.Context) (map[string]int, error)
}

// NewKeys looks after the cluster's keys at one member.
func NewKeys(cfg KeysConfig) *Keys { return &Keys{cfg: cfg} }

const ringKey = "ring"

// ringRecord is what the members agree on. No key itself is in it, except as
// sealed by another.
type ringRecord struct {
	Seals string     `json:"seals"`
	Keys  []ringItem `json:"keys"`
	// Members say what they hold.
	Members map[string]ringMember `json:"members"`
}

type ringItem struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created,omitzero"`
	By      string    `json:"by,omitempty"`
	// Next: it is to seal once every member holds it.
	Next bool `json:"next,omitempty"`
	// Copy is the key, sealed by the one that seals now.
	Copy    []byte    `json:"copy,omitempty"`
	Dropped time.Time `json:"dropped,omitzero"`
}

type ringMember struct {
	Holds []string `json:"holds"`
	// Seals is the key that this member seals by.
	Seals string `json:"seals"`
	// Problem is what keeps it from holding what it should.
	Problem string `json:"problem,omitempty"`
}

func (r *ringRecord) item(id string) *ringItem {
	for i := range r.Keys {
		if r.Keys[i].ID == id {
			return &r.Keys[i]
		}
	}
	return nil
}

func (r *ringRecord) next() *ringItem {
	at := slices.IndexFunc(r.Keys, func(k ringItem) bool { return k.Next })
	if at < 0 {
		return nil
	}
	return &r.Keys[at]
}

func (r *ringRecord) lacking(id string, members []string) (names []string) {
	for _, m := range members {
		if !slices.Contains(r.Members[m].Holds, id) {
			names = append(names, m)
		}
	}
	return names
}

// newRing is the agreement of a cluster that has had none: what this keyring is.
func newRing(k *Keyring) *ringRecord {
	r := &ringRecord{Seals: k.ID(), Members: map[string]ringMember{}}
	for _, key := range k.Keys() {
		r.Keys = append(r.Keys, ringItem{ID: key.ID, Created: key.Created})
	}
	return r
}

func (k *Keys) read(ctx context.Context) (*ringRecord, error) {
	value, err := k.cfg.Records.Get(ctx, TableClusterKey, ringKey)
	if err == nil && value != nil {
		return record.Decode[ringRecord](value)
	}
	return newRing(k.cfg.Keyring), err
}

// update changes the agreement. Where change leaves it as it is, nothing is
// written.
func (k *Keys) update(ctx context.Context, change func(*ringRecord) error) error {
	return record.Update(ctx, k.cfg.Records, TableClusterKey, ringKey, func(value []byte) ([]byte, error) {
		r, err := record.Decode[ringRecord](value)
		if err != nil {
			return nil, err
		}
		if r == nil {
			r = newRing(k.cfg.Keyring)
		}
		if r.Members == nil {
			r.Members = map[string]ringMember{}
		}
		if err := change(r); err != nil {
			return nil, err
		}
		return record.Encode(r), nil
	})
}

// Step does what there is to do for this member now, and is called again and
// again: it takes over keys, reports, lets the next key seal once all hold it,
// and seals anew.
func (k *Keys) Step(ctx context.Context) error {
	r, err := k.read(ctx)
	if err != nil {
		return fmt.Errorf("follow cluster keys: %w", err)
	}
	problem := errors.Join(k.takeOver(r)...)
	members := k.cfg.Members()
	err = k.update(ctx, func(r *ringRecord) error {
		// Who does not know the members decides nothing for them.
		if !slices.Contains(members, k.cfg.Member) {
			return nil
		}
		k.report(r, problem, members)
		if next := r.next(); next != nil && len(r.lacking(next.ID, members)) == 0 {
			// Nobody waits for the copy any more.
			r.Seals, next.Next, next.Copy = next.ID, false, nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("follow cluster keys: %w", errors.Join(problem, err))
	}
	if err := k.reseal(ctx); err != nil {
		return fmt.Errorf("follow cluster keys: %w", errors.Join(problem, err))
	}
	return problem
}

// takeOver makes the keyring what the agreement says, as far as it can.
func (k *Keys) takeOver(r *ringRecord) (problems []error) {
	ring := k.cfg.Keyring
	for _, item := range r.Keys {
		if _, held := ring.key(item.ID); held || !item.Dropped.IsZero() || item.Copy == nil {
			continue
		}
		if err := k.install(item); err != nil {
			problems = append(problems, fmt.Errorf("take over key %s: %w", item.ID, err))
		}
	}
	if _, held := ring.key(r.Seals); !held {
		return append(problems, fmt.Errorf("keyring %s does not hold the key that seals, %s: copy the keyring file of another server", ring.path, r.Seals))
	}
	if err := ring.prefer(r.Seals); err != nil {
		problems = append(problems, err)
	}
	for _, item := range r.Keys {
		if _, held := ring.key(item.ID); !held || item.Dropped.IsZero() {
			continue
		}
		if err := ring.forget(item.ID); err != nil {
			problems = append(problems, fmt.Errorf("forget key %s: %w; take it out of the file by hand", item.ID, err))
		}
	}
	return problems
}

func (k *Keys) install(item ringItem) error {
	line, err := k.cfg.Keyring.Open(keyPurpose(item.ID), item.Copy)
	if err != nil {
		return err
	}
	key, err := parseKey(string(line))
	if err != nil || key.name() != item.ID {
		return fmt.Errorf("it is not what it is called: %w", ErrSealed)
	}
	return k.cfg.Keyring.install([]sealKey{key})
}

func keyPurpose(id string) string { return "cluster key " + id }

// report enters what this member holds. A key that nobody knew was put into the
// file by an operator, who means it to be the next.
func (k *Keys) report(r *ringRecord, problem error, members []string) {
	own := ringMember{Seals: k.cfg.Keyring.ID()}
	for _, key := range k.cfg.Keyring.Keys() {
		item := r.item(key.ID)
		if item == nil {
			r.Keys = append(r.Keys, ringItem{ID: key.ID, Created: key.Created, By: "keyring of " + k.cfg.Member, Next: true})
			item = r.item(key.ID)
		}
		if item.Dropped.IsZero() {
			own.Holds = append(own.Holds, key.ID)
		}
	}
	slices.Sort(own.Holds)
	if problem != nil {
		own.Problem = problem.Error()
	}
	r.Members[k.cfg.Member] = own
	maps.DeleteFunc(r.Members, func(name string, _ ringMember) bool { return !slices.Contains(members, name) })
}

func (k *Keys) reseal(ctx context.Context) error {
	for _, s := range k.cfg.Sealed {
		if err := s.Reseal(ctx, k.cfg.Keyring); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keys) sealedBy(ctx context.Context) (map[string]int, error) {
	all := map[string]int{}
	for _, s := range k.cfg.Sealed {
		counts, err := s.SealedBy(ctx)
		if err != nil {
			return nil, err
		}
		for id, n := range counts {
			all[id] += n
		}
	}
	return all, nil
}

// Rotate makes a new key, which is to seal once every member holds it.
func (k *Keys) Rotate(ctx context.Context, by string) (id string, err error) {
	ring := k.cfg.Keyring
	if ring.given {
		return "", fmt.Errorf("rotate cluster key: %w: systemd hands it over. Add the same new key behind the first one to "+
			"the file of each server and restart them one after the other: it will seal once all have it", ErrReadOnly)
	}
	key := makeSealKey()
	err = k.update(ctx, func(r *ringRecord) error {
		if next := r.next(); next != nil {
			return fmt.Errorf("%w: key %s is on its way to every member; wait for it, or drop it", ErrRotatingKey, next.ID)
		}
		if r.Seals != ring.ID() {
			return fmt.Errorf("%w: this member has yet to take over key %s; try again", ErrRotatingKey, r.Seals)
		}
		line := fmt.Sprintf("%x %s", key.raw, key.created.Format(time.RFC3339))
		r.Keys = append(r.Keys, ringItem{ID: key.name(), Created: key.created, By: by, Next: true,
			Copy: ring.Seal(keyPurpose(key.name()), []byte(line))})
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("rotate cluster key: %w", err)
	}
	return key.name(), k.Step(ctx)
}

// Causes when a key cannot be rotated or dropped.
var (
	ErrRotatingKey = errors.New("a rotation of the key is under way")
	ErrNeeded      = errors.New("the key is needed")
	ErrNoKey       = errors.New("the cluster has no such key")
)

// Drop has every member forget a key, one that has yet to seal or does no more.
// Backups from its time can then only be opened with a keyring that was kept.
func (k *Keys) Drop(ctx context.Context, id string) error {
	err := k.reseal(ctx)
	if err != nil {
		return fmt.Errorf("drop cluster key %s: %w", id, err)
	}
	needed, err := k.sealedBy(ctx)
	if err != nil {
		return fmt.Errorf("drop cluster key %s: %w", id, err)
	}
	err = k.update(ctx, func(r *ringRecord) error {
		item, members := r.item(id), k.cfg.Members()
		switch {
		case !slices.Contains(members, k.cfg.Member):
			return fmt.Errorf("%w: this server does not know who the members are", ErrNeeded)
		case item == nil || !item.Dropped.IsZero():
			return ErrNoKey
		case r.Seals == id:
			return fmt.Errorf("%w: it seals; rotate first", ErrNeeded)
		case needed[id] > 0:
			return fmt.Errorf("%w: %d things in the log are sealed by it", ErrNeeded, needed[id])
		}
		for _, m := range members {
			if seals := r.Members[m].Seals; seals != r.Seals {
				return fmt.Errorf("%w: member %s has not taken over key %s yet", ErrNeeded, m, r.Seals)
			}
		}
		item.Dropped, item.Next, item.Copy = time.Now().UTC(), false, nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop cluster key %s: %w", id, err)
	}
	return k.Step(ctx)
}
