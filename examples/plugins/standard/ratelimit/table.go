package ratelimit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// table keeps the counts of callers in the proxy's shared data: a hash table
// of a fixed number of slots, each a key of the shared data, since keys cannot
// be deleted and callers are without number. A caller's slot is one of a few
// next to its hash. Where all of them are taken by others in the same window,
// the one who has called least is forgotten: a crowded table is lenient, and
// never too strict.
type table struct {
	prefix string
	slots  uint32
}

// neighbours is how many slots are tried for one caller.
const neighbours = 4

func newTable(name string, slots uint32) table { return table{name + "/", slots} }

// slot is the value under one key: the window that it counts (8 bytes), the
// count (4 bytes), and whose it is. The zero slot is of a window long past.
type slot []byte

const slotHead = 12

func (s slot) window() int64  { return int64(binary.LittleEndian.Uint64(s)) }
func (s slot) count() uint32  { return binary.LittleEndian.Uint32(s[8:]) }
func (s slot) caller() []byte { return s[slotHead:] }

func newSlot(caller string, window int64) slot {
	s := binary.LittleEndian.AppendUint64(make(slot, 0, slotHead+len(caller)), uint64(window))
	return append(binary.LittleEndian.AppendUint32(s, 0), caller...)
}

// take counts one request in the window if fewer than limit were made, and
// returns how many are left. Sandboxes that do so at once agree by comparing
// versions: whoever was slower looks again.
func (t table) take(caller string, window int64, limit uint32) (left uint32, allowed bool, err error) {
	const tries = 100
	for range tries {
		key, s, version, err := t.find(caller, window)
		if err != nil {
			return 0, false, err
		}
		used := s.count()
		if used >= limit {
			return 0, false, nil
		}
		binary.LittleEndian.PutUint32(s[8:], used+1)
		err = sdk.SetShared(key, s, version)
		if err == nil {
			return limit - used - 1, true, nil
		}
		if !errors.Is(err, sdk.ErrConflict) {
			return 0, false, err
		}
	}
	return 0, false, fmt.Errorf("slot changed %d times while it was counted", tries)
}

// find returns the caller's slot, or a fresh one in the place of a free or the
// least used one.
func (t table) find(caller string, window int64) (key string, s slot, version uint32, err error) {
	first, least := hash(caller), uint64(math.MaxUint64)
	for i := range uint32(neighbours) {
		at := t.prefix + strconv.FormatUint(uint64((first+i)%t.slots), 10)
		value, v, err := sdk.GetShared(at)
		if err != nil {
			return "", nil, 0, err
		}
		current, used := slot(value), uint64(0)
		if len(value) >= slotHead && current.window() == window {
			if string(current.caller()) == caller {
				return at, current, v, nil
			}
			used = uint64(current.count())
		}
		if used < least {
			key, version, least = at, v, used
		}
	}
	return key, newSlot(caller, window), version, nil
}

// hash is FNV-1a: the same in every sandbox.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
