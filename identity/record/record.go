// Package record says how identity remembers what it must: as values in tables
// that all members of a cluster share.
//
// Nothing is ever written blindly. A [Change] names the value that it replaces,
// so that of two members that decide by the same state one wins, and the other
// looks again. No value is empty.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Store is where the tables are: the cluster's state.
type Store interface {
	// Get returns nil where there is no such key.
	Get(ctx context.Context, table, key string) ([]byte, error)
	// List returns a table by its keys. It may be a moment old.
	List(ctx context.Context, table string) ([]Entry, error)
	// Change makes all changes or, with [ErrConflict], none. What made it refuse
	// is seen by every Get that follows at this member.
	Change(ctx context.Context, changes ...Change) error
}

// Entry is one value of a table.
type Entry struct {
	Key   string
	Value []byte
}

// Change replaces a value. Was is the value that must be there, nil: none may
// be; Is is what will be there, nil: none.
type Change struct {
	Table, Key string
	Was, Is    []byte
}

// ErrConflict is the cause when something is not, or no longer, as a change
// says.
var ErrConflict = errors.New("it has changed meanwhile")

// maxTries bounds how often Update begins again. Each time somebody else has
// got ahead, so whoever needs as many meets a mistake, not a crowd.
const maxTries = 1000

// Update replaces one value by what next makes of it, nil standing for none.
// next is called again for as long as others get in between. It ends the
// update with an error, or by returning what it was given.
func Update(ctx context.Context, s Store, table, key string, next func(was []byte) (is []byte, err error)) error {
	return Retry(ctx, func() error {
		was, err := s.Get(ctx, table, key)
		if err != nil {
			return err
		}
		is, err := next(was)
		if err != nil || string(is) == string(was) {
			return err
		}
		return s.Change(ctx, Change{Table: table, Key: key, Was: was, Is: is})
	})
}

// Retry tries for as long as others get in between.
func Retry(ctx context.Context, try func() error) error {
	for range maxTries {
		err := try()
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("%w, %d times", ErrConflict, maxTries)
}

// Encode makes a value. What is recorded always has a form in JSON.
func Encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("record: " + err.Error())
	}
	return data
}

// Decode reads what Encode made; of nothing it makes nil.
func Decode[T any](value []byte) (*T, error) {
	if value == nil {
		return nil, nil
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	return v, nil
}
