// Package roster is what members know of where the others are: name, address
// and what each of them understands. Raft knows members by name alone; this is
// how a name becomes an address, and why all addresses may change.
//
// An [Entry] is made by the member that it tells of, and no other; of two of
// the same member the one with the higher version is the newer. So rosters can
// be merged in any order, by anyone, as often as one likes, and all end up the
// same.
package roster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/weirmesh/weir/internal/durable"
)

// Entry is what a member says of itself.
type Entry struct {
	Name, Address string
	// Newest is the newest kind of command that it understands.
	Newest uint32
	// Version grows with each change.
	Version uint64
}

const (
	magic      = "weir roster 1\n"
	maxText    = 1 << 10
	maxEntries = 1 << 10
	// maxVersion leaves room for a newer one. Versions begin with a clock's
	// milliseconds: nobody comes by it honestly.
	maxVersion = 1 << 62
	sumSize    = 4
)

// Roster is a set of entries, in memory and in a file. Its methods may be
// called by anyone at any time.
type Roster struct {
	path string

	mu      sync.Mutex
	entries map[string]Entry
}

// Open reads the roster of a file; where there is none it is empty. One that
// is damaged is an error: the caller may go on with an empty one.
func Open(path string) (*Roster, error) {
	r := &Roster{path: path, entries: map[string]Entry{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read roster: %w", err)
	}
	entries, err := DecodeFile(data)
	if err != nil {
		return r, fmt.Errorf("read roster %s: %w", path, err)
	}
	for _, e := range entries {
		r.entries[e.Name] = e
	}
	return r, nil
}

// Merge takes over what is newer, and writes the file if there was anything.
func (r *Roster) Merge(entries ...Entry) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		had, found := r.entries[e.Name]
		if e.Name == "" || e.Version > maxVersion || found && had.Version >= e.Version || !found && len(r.entries) >= maxEntries {
			continue
		}
		r.entries[e.Name], changed = e, true
	}
	if !changed {
		return false, nil
	}
	if err := durable.WriteFile(r.path, EncodeFile(r.list())); err != nil {
		return true, fmt.Errorf("write roster: %w", err)
	}
	return true, nil
}

// Get finds a member.
func (r *Roster) Get(name string) (Entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, found := r.entries[name]
	return e, found
}

// List returns all entries by name.
func (r *Roster) List() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list()
}

func (r *Roster) list() []Entry {
	return slices.SortedFunc(maps.Values(r.entries), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeFile is a roster as it is in a file.
func EncodeFile(entries []Entry) []byte {
	data := Append([]byte(magic), entries)
	return binary.BigEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// DecodeFile reads what EncodeFile wrote.
func DecodeFile(data []byte) ([]Entry, error) {
	if len(data) < len(magic)+sumSize || string(data[:len(magic)]) != magic {
		return nil, errors.New("it is no roster of this version")
	}
	body, sum := data[:len(data)-sumSize], data[len(data)-sumSize:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, errors.New("its checksum does not hold: it is damaged")
	}
	return Decode(body[len(magic):])
}

// Append encodes entries behind what is there.
func Append(b []byte, entries []Entry) []byte {
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for _, e := range entries {
		for _, text := range []string{e.Name, e.Address} {
			b = binary.AppendUvarint(b, uint64(len(text)))
			b = append(b, text...)
		}
		b = binary.AppendUvarint(b, uint64(e.Newest))
		b = binary.AppendUvarint(b, e.Version)
	}
	return b
}

var errCut = errors.New("it is cut short, or makes no sense")

// Decode reads what Append wrote, and nothing may follow.
func Decode(b []byte) ([]Entry, error) {
	number := func(most uint64) (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > most {
			return 0, errCut
		}
		b = b[n:]
		return v, nil
	}
	text := func() (string, error) {
		size, err := number(maxText)
		if err != nil || size > uint64(len(b)) {
			return "", errCut
		}
		s := string(b[:size])
		b = b[size:]
		return s, nil
	}
	count, err := number(maxEntries)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for range count {
		var e Entry
		var err1, err2, err3, err4 error
		var newest uint64
		e.Name, err1 = text()
		e.Address, err2 = text()
		newest, err3 = number(1<<32 - 1)
		e.Version, err4 = number(1<<64 - 1)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, errCut
		}
		e.Newest = uint32(newest)
		entries = append(entries, e)
	}
	if len(b) > 0 {
		return nil, errors.New("something follows its end")
	}
	return entries, nil
}
