// Package identitytest helps tests of what uses package identity.
package identitytest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weirmesh/weir/identity/record"
)

// Records keeps identity's records in memory. Any number of registrars may
// share one, as the members of a cluster do.
type Records struct {
	mu     sync.Mutex
	values map[string][]byte
	// before, when set, is called ahead of each change, and may make others or
	// refuse it.
	before func([]record.Change) error
}

var _ record.Store = (*Records)(nil)

// NewRecords has nothing in it.
func NewRecords() *Records { return &Records{values: map[string][]byte{}} }

// Before has f called ahead of each change that is asked for from now on; an
// error of it is the change's. nil: no longer.
func (r *Records) Before(f func([]record.Change) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

// Value is what Get returns. It shows that Records stands in for a member's
// own state too.
func (r *Records) Value(table, key string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, ok := r.values[table+"\x00"+key]
	return bytes.Clone(value), ok
}

// Get returns nil where there is no such key.
func (r *Records) Get(ctx context.Context, table, key string) ([]byte, error) {
	value, _ := r.Value(table, key)
	return value, context.Cause(ctx)
}

// List returns a table by its keys.
func (r *Records) List(ctx context.Context, table string) ([]record.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var entries []record.Entry
	for _, path := range slices.Sorted(maps.Keys(r.values)) {
		if key, ok := strings.CutPrefix(path, table+"\x00"); ok {
			entries = append(entries, record.Entry{Key: key, Value: bytes.Clone(r.values[path])})
		}
	}
	return entries, context.Cause(ctx)
}

// Change makes all changes or none.
func (r *Records) Change(ctx context.Context, changes ...record.Change) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil {
		if err := before(changes); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range changes {
		now, there := r.values[c.Table+"\x00"+c.Key]
		if there != (c.Was != nil) || !bytes.Equal(now, c.Was) {
			return record.ErrConflict
		}
	}
	for _, c := range changes {
		if c.Is == nil {
			delete(r.values, c.Table+"\x00"+c.Key)
			continue
		}
		r.values[c.Table+"\x00"+c.Key] = bytes.Clone(c.Is)
	}
	return nil
}

// Suite is what every record.Store promises.
func Suite(t *testing.T, s record.Store) {
	get := func(want string) {
		t.Helper()
		value, err := s.Get(t.Context(), "suite", "a")
		if err != nil || string(value) != want || (value == nil) != (want == "") {
			t.Fatalf("got %q, %v; want %q", value, err, want)
		}
	}
	change := func(want error, changes ...record.Change) {
		t.Helper()
		if err := s.Change(t.Context(), changes...); !errors.Is(err, want) {
			t.Fatalf("changing %v gave %v, want %v", changes, err, want)
		}
	}
	of := func(key, was, is string) record.Change {
		c := record.Change{Table: "suite", Key: key}
		if was != "" {
			c.Was = []byte(was)
		}
		if is != "" {
			c.Is = []byte(is)
		}
		return c
	}
	get("")
	change(nil, of("a", "", "1"))
	get("1")
	change(record.ErrConflict, of("a", "", "2"))
	change(record.ErrConflict, of("b", "", "2"), of("a", "0", "2"))
	change(nil, of("b", "", "2"), of("a", "1", "3"))
	get("3")
	entries, err := s.List(t.Context(), "suite")
	if err != nil || len(entries) != 2 || entries[0].Key != "a" || string(entries[1].Value) != "2" {
		t.Fatalf("listed %v, %v", entries, err)
	}
	change(record.ErrConflict, of("a", "3", ""), of("c", "1", ""))
	change(nil, of("a", "3", ""), of("b", "2", ""))
	get("")
	change(record.ErrConflict, of("a", "3", "4"))
}
