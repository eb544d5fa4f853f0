package node

import (
	"context"
	"fmt"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/identity/record"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// records are identity's tables, in the store and through the log.
type records struct {
	store *store.Store
	log   *cluster.Node
}

var _ identity.Records = records{}

// Get asks this member's own state first. What is not there may only have not
// come here yet, so it then waits for all that was acknowledged anywhere.
func (r records) Get(ctx context.Context, table, key string) ([]byte, error) {
	if value, ok := r.store.View().Value(table, key); ok {
		return value, nil
	}
	if err := r.log.ReadBarrier(ctx); err != nil {
		return nil, err
	}
	value, _ := r.store.View().Value(table, key)
	return value, nil
}

// List is of this member's own state.
func (r records) List(ctx context.Context, table string) (entries []record.Entry, err error) {
	for key, value := range r.store.View().Values(table) {
		entries = append(entries, record.Entry{Key: key, Value: value})
	}
	return entries, context.Cause(ctx)
}

func (r records) Change(ctx context.Context, changes ...record.Change) error {
	m := new(weirv1.ChangeValues)
	for _, c := range changes {
		m.Changes = append(m.Changes, &weirv1.ValueChange{
			Table: c.Table, Key: c.Key, MustNotExist: c.Was == nil, MustBe: c.Was, Value: c.Is,
		})
	}
	result, err := r.log.Propose(ctx, &weirv1.Command{Action: &weirv1.Command_ChangeValues{ChangeValues: m}})
	if err != nil {
		return err
	}
	refused, ok := result.(*store.RefusedError)
	if !ok {
		stopped, _ := result.(error)
		return stopped
	}
	for _, v := range refused.Violations {
		if v.Reason == store.AlreadyExists || v.Reason == store.Conflict {
			return fmt.Errorf("%w: %w", record.ErrConflict, refused)
		}
	}
	return refused
}

// empty tells whether a table holds nothing.
func (r records) empty(table string) bool {
	for range r.store.View().Values(table) {
		return false
	}
	return true
}
