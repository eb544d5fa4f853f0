package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrInUse is the cause when another process has a data directory.
var ErrInUse = errors.New("in use by another weir")

// lockName is the name by which a lock is passed to the next process.
const lockName = "lock"

// lockDir keeps other processes out of a data directory until the file is
// closed, by whatever ends this process. held is the lock where the process
// before has passed it; it is one that both have, and names the other one until
// this one is ready.
func lockDir(dir string, held *os.File) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	shared := false
	if held != nil {
		if shared = sameFile(f, held); shared {
			f.Close()
			f = held
		} else {
			held.Close() // of another directory
		}
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		err = fmt.Errorf("%s is %w (process %s)", dir, ErrInUse, strings.TrimSpace(string(holder)))
	}
	if err == nil && !shared {
		err = writeHolder(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}

// writeHolder says whose lock it is, for the error that another process gets and for
// whoever signals the process.
func writeHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

func sameFile(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}
