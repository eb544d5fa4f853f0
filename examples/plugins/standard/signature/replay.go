package signature

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// memory remembers signatures that were accepted until they are too old, so that none is
// accepted twice, whichever sandbox of the proxy sees it. Only what was signed by a known
// key is remembered: others cannot fill it.
//
// It is a hash table in the proxy's shared data: of pages, each of which lists signatures
// by the first eight bytes of their digest, and when they are too old. Where a page is
// full of those that are not, no more are accepted.
type memory struct {
	name  string
	pages uint32
}

const (
	// pageSize is how many signatures a page has at most, and entry how long one is.
	pageSize = 256
	entry    = 8 + 4
	// fill is how full pages are on the average when as many are remembered as was
	// asked for: some get more than others.
	fill = pageSize * 3 / 4
)

func newMemory(name string, signatures int) *memory {
	return &memory{name, uint32(max(1, (signatures+fill-1)/fill))}
}

var (
	errReplayed = refusal("it was used before")
	errFull     = errors.New("as many signatures are remembered as there is room for")
)

// add remembers a signature until a time, in seconds since 1970. It refuses one that it
// remembers.
func (m *memory) add(identity []byte, until, now int64) error {
	sum, err := sdk.Digest(sdk.SHA256, identity)
	if err != nil {
		return err
	}
	digest := binary.LittleEndian.Uint64(sum)
	key := m.name + "/" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(sum[8:])%m.pages), 10)
	return updateShared(key, func(page []byte) ([]byte, error) {
		left := page[:0]
		for ; len(page) >= entry; page = page[entry:] {
			if int64(binary.LittleEndian.Uint32(page[8:])) < now {
				continue
			}
			if binary.LittleEndian.Uint64(page) == digest {
				return nil, errReplayed
			}
			left = append(left, page[:entry]...)
		}
		if len(left) >= pageSize*entry {
			return nil, errFull
		}
		left = binary.LittleEndian.AppendUint64(left, digest)
		return binary.LittleEndian.AppendUint32(left, uint32(until)), nil
	})
}

// updateShared is sdk.UpdateShared with a change that may be refused.
func updateShared(key string, change func(old []byte) ([]byte, error)) error {
	const tries = 100
	for range tries {
		old, version, err := sdk.GetShared(key)
		if err != nil {
			return err
		}
		value, err := change(old)
		if err != nil {
			return err
		}
		if err = sdk.SetShared(key, value, version); !errors.Is(err, sdk.ErrConflict) {
			return err
		}
	}
	return sdk.ErrConflict
}

// once refuses a signature that was accepted before, by its nonce if it has one.
func (s *signed) once(in *input, signature []byte) error {
	if s.memory == nil {
		return nil
	}
	identity := append([]byte(in.keyID), 0)
	if in.nonce != "" {
		identity = append(append(identity, 'n'), in.nonce...)
	} else {
		identity = append(append(identity, 's'), signature...)
	}
	now := sdk.NowNanos() / int64(time.Second)
	return s.memory.add(identity, in.created+s.config.MaxAge+s.config.Leeway, now)
}
