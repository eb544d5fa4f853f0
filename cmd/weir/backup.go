package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// backupPiece is how much of a backup is sent in one message.
const backupPiece = 256 << 10

func newBackupCommand(c *client) *cobra.Command {
	var current bool
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Save all of the state to a file",
		Long: `Save all of the state to a file, or to standard output. The file appears once
it is whole. It holds secrets, sealed by the cluster key: keep a copy of
DATA/keyring, and keep it elsewhere.

Without a majority a server gives what it has, and a warning; with --current it
is an error.`,
		Example: "  weir cluster backup weir-$(date +%F).backup",
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&current, "current", false, "fail when the server cannot know that it gives all there is")
	return answered(c, cmd, view[*weirv1.BackupInfo]{
		program: message[*weirv1.BackupInfo],
		names:   func(i *weirv1.BackupInfo) []string { return []string{fmt.Sprint(i.GetRevision())} },
		table:   func(*cobra.Command, *weirv1.BackupInfo, bool) error { return nil },
	}, func(cmd *cobra.Command, args []string, api *session) (*weirv1.BackupInfo, error) {
		info, size, err := backup(cmd, api, args[0], current)
		if err != nil {
			return nil, err
		}
		if info.GetStale() {
			age := "which may be old"
			if info.GetStaleness() != nil {
				age = fmt.Sprintf("%s old", brief(info.GetStaleness().AsDuration()))
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: the servers have no majority; this is what %s has, %s\n", info.GetMember(), age)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "revision %d, %s\n", info.GetRevision(), byteText(size))
		return info, nil
	})
}

func backup(cmd *cobra.Command, api *session, file string, current bool) (info *weirv1.BackupInfo, size uint64, err error) {
	stream, err := api.cluster.Backup(cmd.Context(), &weirv1.BackupRequest{RequireCurrent: current})
	if err != nil {
		return nil, 0, err
	}
	defer stream.Close()
	first, err := stream.Receive()
	if err != nil {
		return nil, 0, err
	}
	write := func(w io.Writer) error {
		for {
			m, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			size += uint64(len(m.GetChunk()))
			if _, err := w.Write(m.GetChunk()); err != nil {
				return err
			}
		}
	}
	if file == "-" {
		err = write(cmd.OutOrStdout())
	} else {
		err = writeWhole(file, write)
	}
	return first.GetInfo(), size, err
}

// writeWhole gives a file its name once all of it is on the disk.
func writeWhole(file string, write func(io.Writer) error) error {
	partial := file + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(partial, file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return nil
}

func newRestoreCommand(c *client) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Put the state of a backup in the place of what is there, on all servers",
		Long: `Put the state of a backup in the place of what is there, on all servers. A
damaged backup is refused, and so is one for a cluster that holds resources,
unless with --force. Where no majority of the servers is left there is nobody
to restore to: found a new cluster from the backup instead (weir cluster
recover).`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also in the place of what is declared")
	return done(c, cmd, "restored", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		source := cmd.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return "", fmt.Errorf("read backup: %w", err)
			}
			defer f.Close()
			source = f
		}
		// Whoever answers this takes the backup, which cannot be sent twice.
		if _, err := clusterStatus(cmd, nil, api); err != nil {
			return "", err
		}
		revision, err := restore(cmd.Context(), api, source, force)
		if err != nil && args[0] != "-" {
			err = fmt.Errorf("%s: %w", args[0], err)
		}
		return fmt.Sprintf("revision/%d", revision), err
	})
}

func restore(ctx context.Context, api *session, source io.Reader, force bool) (revision uint64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := api.cluster.Restore(ctx)
	if err != nil {
		return 0, err
	}
	err = stream.Send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Options{Options: &weirv1.RestoreOptions{Force: force}}})
	piece := make([]byte, backupPiece)
	for err == nil {
		n, readErr := io.ReadFull(source, piece)
		if n > 0 {
			err = stream.Send(&weirv1.RestoreRequest{Part: &weirv1.RestoreRequest_Chunk{Chunk: piece[:n]}})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return 0, fmt.Errorf("read backup: %w", readErr) // and with it the context, so that the server hears no end
		}
	}
	// What went wrong while sending, the answer tells.
	m, err := stream.CloseAndReceive()
	return m.GetRevision(), err
}
