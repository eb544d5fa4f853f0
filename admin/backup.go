package admin

import (
	"context"
	"errors"
	"fmt"
	"io"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// backupPiece is how much of a backup travels in one message.
const backupPiece = 256 << 10

// Backup sends what was decided before the call. A member that cannot know what
// that is sends what it has, and says so, unless that is not wanted.
func (o operator) Backup(ctx context.Context, req *weirv1.BackupRequest, stream weirv1connect.ClusterServiceBackupServerStream) error {
	stale := false
	if err := o.sync(ctx); err != nil {
		if req.GetRequireCurrent() || !errors.Is(err, ErrUnavailable) {
			return err
		}
		stale = true
	}
	status, err := o.Servers.Status(ctx)
	if err != nil {
		return fmt.Errorf("read status of the cluster: %w", err)
	}
	content, revision, err := o.Servers.Backup(ctx, stale)
	if err != nil {
		return fmt.Errorf("take backup: %w", err)
	}
	defer content.Close()
	info := &weirv1.BackupInfo{Member: status.GetMember(), Revision: revision, Stale: stale}
	if stale {
		info.Staleness = status.GetStaleness()
	}
	o.Logger.Info("backup begun", "actor", Actor(ctx), "revision", revision, "stale", stale)
	if err := stream.Send(&weirv1.BackupResponse{Part: &weirv1.BackupResponse_Info{Info: info}}); err != nil {
		return err
	}
	piece := make([]byte, backupPiece)
	for {
		n, err := io.ReadFull(content, piece)
		if n > 0 {
			if err := stream.Send(&weirv1.BackupResponse{Part: &weirv1.BackupResponse_Chunk{Chunk: piece[:n]}}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read backup: %w", err)
		}
	}
}

// Restore reads the options before it lets any of the content have an effect.
func (o operator) Restore(ctx context.Context, stream weirv1connect.ClusterServiceRestoreServerStream) (*weirv1.RestoreResponse, error) {
	first, err := stream.Receive()
	if errors.Is(err, io.EOF) || err == nil && first.GetOptions() == nil {
		return nil, invalid("options", "is required in the first message, before the chunks")
	}
	if err != nil {
		return nil, err
	}
	if err := o.sync(ctx); err != nil {
		return nil, err
	}
	pieces := &pieces{stream: stream}
	if there := o.resources(); there > 0 && !first.GetOptions().GetForce() {
		// Nobody is to force what cannot be restored anyway.
		err := o.Servers.CheckBackup(pieces)
		switch {
		case pieces.broken != nil:
			return nil, pieces.broken
		case err != nil:
			return nil, fmt.Errorf("restore backup: %w", err)
		}
		return nil, fmt.Errorf("restore backup: %w", &Refused{Violations: []Violation{{Reason: ReasonState,
			Message: fmt.Sprintf("what is declared would be replaced by the backup (resources: %d); force it if that is meant", there)}}})
	}
	revision, err := o.Servers.Restore(ctx, pieces)
	if pieces.broken != nil {
		return nil, pieces.broken // the caller's doing, whatever came of it
	}
	if err != nil {
		return nil, fmt.Errorf("restore backup: %w", err)
	}
	o.Logger.Warn("backup restored", "actor", Actor(ctx), "revision", revision, "force", first.GetOptions().GetForce())
	return &weirv1.RestoreResponse{Revision: revision}, nil
}

// resources counts what is declared.
func (o operator) resources() (n uint64) {
	for _, count := range o.Store.View().Counts() {
		n += count
	}
	return n
}

// pieces reads the chunks of a Restore as one.
type pieces struct {
	stream weirv1connect.ClusterServiceRestoreServerStream
	rest   []byte
	// broken is why the chunks ended before their end.
	broken error
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.stream.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case err == nil && m.GetOptions() != nil:
			err = invalid("options", "is for the first message alone")
		}
		if err != nil {
			p.broken = err
			return 0, err
		}
		p.rest = m.GetChunk()
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
