package node

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Backup streams the state. It is written while it is read.
func (v servers) Backup(ctx context.Context, stale bool) (io.ReadCloser, uint64, error) {
	write := v.s.cluster.Backup
	if stale {
		write = v.s.cluster.BackupOwn
	} else if err := v.s.cluster.ReadBarrier(ctx); err != nil {
		return nil, 0, outcome(err)
	}
	revision := v.s.store.View().Revision()
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(write(ctx, v.s.identity.TrustDomain(), w))
	}()
	return &backup{PipeReader: r, cancel: cancel, done: done}, revision, nil
}

// backup is one under way; Close ends it and waits for it.
type backup struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   chan struct{}
}

func (b *backup) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.done
	return err
}

// Restore is the leader's to do, so this member becomes it first.
func (v servers) Restore(ctx context.Context, content io.Reader) (uint64, error) {
	if status := v.s.cluster.Status(); status.Leader != status.Name {
		if err := v.s.cluster.Transfer(ctx, status.Name); err != nil {
			return 0, membersOutcome(fmt.Errorf("lead, to restore: %w", err))
		}
	}
	if err := restoreOutcome(v.s.cluster.Restore(ctx, v.s.identity.TrustDomain(), content)); err != nil {
		return 0, err
	}
	return v.raise(ctx), nil
}

// CheckBackup reads a backup as Restore does, and changes nothing.
func (v servers) CheckBackup(content io.Reader) error {
	return restoreOutcome(cluster.CheckBackup(v.s.identity.TrustDomain(), content))
}

func restoreOutcome(err error) error {
	switch {
	case errors.Is(err, cluster.ErrRefused):
		return refused(admin.ReasonState, "%v; a new cluster can begin with it: weir cluster recover --from", err)
	case errors.Is(err, identity.ErrSealed):
		return refused(admin.ReasonState, "%v; a new cluster can begin with it and the keyring of its time: weir cluster recover --from", err)
	case errors.Is(err, cluster.ErrDamaged):
		return refused(admin.ReasonInvalid, "%v", err)
	}
	return outcome(err)
}

// raise gives what was restored a revision of its own. Without one it would bear
// one that proxies and people know as something else, until the next change.
func (v servers) raise(ctx context.Context) uint64 {
	raise := &weirv1.Command{Action: &weirv1.Command_RaiseRevision{RaiseRevision: new(weirv1.RaiseRevision)}}
	if _, err := v.s.cluster.Propose(ctx, raise); err != nil {
		v.s.log.Warn("what was restored has no revision of its own until the next change", "error", err)
	}
	return v.s.store.View().Revision()
}
