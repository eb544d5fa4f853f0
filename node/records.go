package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
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

func (r records) Put(ctx context.Context, table, key string, value []byte, create bool) error {
	result, err := r.log.Propose(ctx, &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{
		Table: table, Key: key, Value: value, MustNotExist: create,
	}}})
	if err != nil {
		return err
	}
	refused, ok := result.(*store.RefusedError)
	if !ok {
		return nil
	}
	for _, v := range refused.Violations {
		if v.Reason == store.AlreadyExists {
			return fmt.Errorf("%w: %w", identity.ErrExists, refused)
		}
	}
	return errors.Join(refused)
}

// empty tells whether a table holds nothing.
func (r records) empty(table string) bool {
	for range r.store.View().Values(table) {
		return false
	}
	return true
}
