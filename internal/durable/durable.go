// Package durable writes files that are whole or not there at all, whenever
// the power goes: what a reader finds under a name is the old content or the
// new, never a part of either.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path with data, readable by its owner alone,
// and returns once both the content and the name are on the disk.
func WriteFile(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Discard())
	}
	return f.Commit()
}

// File is a file being written under a temporary name beside its own.
type File struct {
	*os.File
	path string
}

// Create begins a file. Commit gives it its name, Discard forgets it.
func Create(path string) (*File, error) {
	// CreateTemp makes files of mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return &File{File: f, path: path}, nil
}

// Commit syncs the file, gives it its name and closes it.
func (f *File) Commit() error {
	if err := f.CommitOpen(); err != nil {
		return err
	}
	return f.Close()
}

// CommitOpen is Commit for a file that will be appended to.
func (f *File) CommitOpen() error {
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", f.path, err), f.Discard())
	}
	if err := f.CommitUnsynced(); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(f.path)); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// CommitUnsynced is CommitOpen where no power fails: in simulations.
func (f *File) CommitUnsynced() error {
	if err := os.Rename(f.Name(), f.path); err != nil {
		return errors.Join(fmt.Errorf("name %s: %w", f.path, err), f.Discard())
	}
	return nil
}

// Discard closes and removes what was written so far.
func (f *File) Discard() error {
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// MakeDir makes a directory with those above it that are missing, all for their
// owner alone, and every new name durable.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MakeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}
