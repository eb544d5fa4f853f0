package meter

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a journal. An epoch's lock is there as long as anything of the epoch is.
const (
	segmentSuffix = ".segment"
	lockSuffix    = ".lock"
	damagedSuffix = ".damaged"
	refusedSuffix = ".refused"
)

func lockPath(dir string, e epoch) string { return filepath.Join(dir, e.String()+lockSuffix) }

// lockNew makes an epoch's lock. It gets its name when it is locked, so that nobody takes
// the epoch for one that has ended.
func lockNew(dir string, e epoch) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".lock-*")
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = os.Rename(f.Name(), lockPath(dir, e))
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return f, nil
}

// lockLeft locks an epoch whose process has ended; nil: it has not.
func lockLeft(dir string, e epoch) (*os.File, error) {
	f, err := os.OpenFile(lockPath(dir, e), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}

// left lists the epochs that a directory has files of, and their segments in order.
func left(dir string) (map[epoch][]name, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := map[epoch][]name{}
	for _, entry := range entries {
		if n, ok := parseName(entry.Name()); ok {
			all[n.epoch] = append(all[n.epoch], n)
		} else if e, ok := parseEpoch(strings.CutSuffix(entry.Name(), lockSuffix)); ok {
			all[e] = append(all[e], []name{}...)
		}
	}
	for _, names := range all {
		slices.SortFunc(names, func(a, b name) int { return cmp.Compare(a.sequence, b.sequence) })
	}
	return all, nil
}

func parseName(file string) (n name, ok bool) {
	base, ok := strings.CutSuffix(file, segmentSuffix)
	if !ok {
		return n, false
	}
	first, second, ok := strings.Cut(base, ".")
	if n.epoch, ok = parseEpoch(first, ok); !ok || len(second) != 16 {
		return n, false
	}
	var err error
	n.sequence, err = strconv.ParseUint(second, 16, 64)
	return n, err == nil
}

func parseEpoch(text string, ok bool) (e epoch, _ bool) {
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != len(e) {
		return e, false
	}
	copy(e[:], b)
	return e, true
}
