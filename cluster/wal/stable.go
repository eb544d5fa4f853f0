package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/weirmesh/weir/internal/durable"
)

// stable holds a few small values in a file that is replaced whole. They change
// when a term or a vote does.
type stable struct {
	path   string
	noSync bool

	mu     sync.RWMutex
	values map[string][]byte
	closed bool
}

const (
	stableMagic = "weirval1"
	maxStable   = 64 << 10
)

// openStable reads the values; of a new log it makes the file.
func openStable(path string, isNew, noSync bool) (*stable, error) {
	s := &stable{path: path, noSync: noSync, values: map[string][]byte{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && isNew {
		return s, s.replace(s.values)
	}
	if err == nil {
		s.values, err = decodeStable(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

func (s *stable) set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	values := maps.Clone(s.values)
	values[string(key)] = slices.Clone(value)
	return s.replace(values)
}

// clear forgets all values but one.
func (s *stable) clear(but []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[string][]byte{}
	if value, found := s.values[string(but)]; found {
		values[string(but)] = value
	}
	return s.replace(values)
}

func (s *stable) replace(values map[string][]byte) error {
	f, err := durable.Create(s.path)
	if err != nil {
		return err
	}
	if _, err := f.Write(encodeStable(values)); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", s.path, err), f.Discard())
	}
	commit := f.CommitOpen
	if s.noSync {
		commit = f.CommitUnsynced
	}
	if err := commit(); err != nil {
		return err
	}
	s.values = values
	return f.Close()
}

func (s *stable) get(key []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.values[string(key)])
}

func (s *stable) setUint64(key []byte, n uint64) error {
	return s.set(key, binary.LittleEndian.AppendUint64(nil, n))
}

func (s *stable) getUint64(key []byte) (uint64, error) {
	value := s.get(key)
	switch len(value) {
	case 0:
		return 0, nil
	case 8:
		return binary.LittleEndian.Uint64(value), nil
	}
	return 0, fmt.Errorf("read %s from %s: %d bytes are no number", key, s.path, len(value))
}

func (s *stable) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// The file: magic, CRC-32C of what follows, then for each value the lengths of
// key and value, 4 bytes each, and both.
func encodeStable(values map[string][]byte) []byte {
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(values)) {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(values[key])))
		b = append(append(b, key...), values[key]...)
	}
	head := binary.LittleEndian.AppendUint32([]byte(stableMagic), crc32.Checksum(b, castagnoli))
	return append(head, b...)
}

var errDamaged = errors.New("the file is damaged")

func decodeStable(data []byte) (map[string][]byte, error) {
	const head = len(stableMagic) + 4
	if len(data) < head || len(data) > maxStable || string(data[:len(stableMagic)]) != stableMagic {
		return nil, errDamaged
	}
	b := data[head:]
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(data[len(stableMagic):]) {
		return nil, errDamaged
	}
	values := map[string][]byte{}
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, errDamaged
		}
		key, value := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		if b = b[8:]; key+value > uint64(len(b)) {
			return nil, errDamaged
		}
		values[string(b[:key])] = slices.Clone(b[key : key+value])
		b = b[key+value:]
	}
	return values, nil
}
