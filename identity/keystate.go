package identity

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// KeyState is what may be told of one of the cluster's keys.
type KeyState struct {
	ID      string
	Created time.Time // zero: not known
	By      string    // who rotated to it; empty for the first
	State   KeyPhase
	Dropped time.Time
	// Held are the members whose keyring holds it, Lacking those whose does not.
	Held, Lacking []string
	// Needed is how many things in the log are sealed by it.
	Needed int
	// Problems are what keeps members from holding what they should, by member.
	Problems map[string]string
}

// KeyPhase is what a key is good for.
type KeyPhase string

// The phases of a key's life.
const (
	KeyNext    KeyPhase = "NEXT"
	KeySeals   KeyPhase = "SEALS"
	KeyOpens   KeyPhase = "OPENS"
	KeyDropped KeyPhase = "DROPPED"
)

func (i ringItem) phase(seals string) KeyPhase {
	switch {
	case !i.Dropped.IsZero():
		return KeyDropped
	case i.ID == seals:
		return KeySeals
	case i.Next:
		return KeyNext
	}
	return KeyOpens
}

// List tells of each key, the oldest first.
func (k *Keys) List(ctx context.Context) ([]KeyState, error) {
	r, err := k.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("list cluster keys: %w", err)
	}
	needed, err := k.sealedBy(ctx)
	if err != nil {
		return nil, fmt.Errorf("list cluster keys: %w", err)
	}
	members := k.cfg.Members()
	var list []KeyState
	for _, item := range r.Keys {
		s := KeyState{ID: item.ID, Created: item.Created, By: item.By, State: item.phase(r.Seals), Dropped: item.Dropped,
			Needed: needed[item.ID], Problems: map[string]string{}}
		s.Lacking = r.lacking(item.ID, members)
		for _, m := range members {
			if !slices.Contains(s.Lacking, m) {
				s.Held = append(s.Held, m)
			}
			if p := r.Members[m].Problem; p != "" {
				s.Problems[m] = p
			}
		}
		list = append(list, s)
	}
	return list, nil
}
