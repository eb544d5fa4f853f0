package nodeapi

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/durable"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	journalName  = "config.journal"
	journalMagic = "weir journal 1\n"
	journalIDLen = 16
	journalHead  = len(journalMagic) + journalIDLen
	maxJournal   = 1 << 30
	// minCompact is how much is appended at the least before the journal is
	// written anew.
	minCompact = 1 << 20
)

// journal keeps the last good configuration on disk: a snapshot, and after it
// the changes that were accepted since.
//
//	magic  file id  { length  sealed message }…
//
// Each record is sealed under the file's id and its own number, so that none
// can be moved, left out or brought in from elsewhere. A file that ends in the
// middle of a change is what a crash leaves; what stands before it is good.
type journal struct {
	path    string
	keyring *identity.Keyring
	// owner is whose configuration it is; another cluster's does not open.
	owner string

	file     *os.File // nil: the next write makes a new file
	left     bool     // to another process
	id       [journalIDLen]byte
	records  int
	base     int    // bytes of the snapshot
	appended int    // bytes after it
	at       uint64 // the last revision written
}

func newJournal(dir, owner string, keyring *identity.Keyring) *journal {
	return &journal{path: filepath.Join(dir, journalName), keyring: keyring, owner: owner}
}

// load returns what the journal holds, nil when there is none. With an error it
// returns what could still be read, if anything: the file is then replaced at
// the next write.
func (j *journal) load() (*held, error) {
	info, err := os.Stat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if info.Size() > maxJournal {
		return nil, fmt.Errorf("read journal %s: %d bytes are more than it can have", j.path, info.Size())
	}
	data, err := os.ReadFile(j.path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	h, err := j.parse(data)
	if err != nil {
		return h, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return h, nil
}

func (j *journal) parse(data []byte) (*held, error) {
	if len(data) < journalHead || !bytes.HasPrefix(data, []byte(journalMagic)) {
		return nil, errors.New("it is no journal")
	}
	copy(j.id[:], data[len(journalMagic):])
	var good *held // up to the last whole change
	h, c := newHeld(), &received{}
	at := journalHead
	for j.records = 0; at < len(data); j.records++ {
		m, size, err := j.record(data[at:])
		if err != nil {
			return good, fmt.Errorf("record %d at byte %d: %w", j.records, at, err)
		}
		at += size
		whole, err := c.add(m)
		if err != nil {
			return good, fmt.Errorf("record %d: %w", j.records, err)
		}
		if !whole {
			continue
		}
		if good == nil && !c.snapshot {
			return nil, errors.New("it does not begin with a snapshot")
		}
		if err := h.receive(c); err != nil {
			return nil, err
		}
		h.accept()
		good, c = h, &received{}
	}
	if c.parts > 0 {
		return good, errors.New("it ends in the middle of a change")
	}
	return good, nil
}

var errCut = errors.New("it is cut short")

func (j *journal) record(data []byte) (m *weirv1.StreamConfigResponse, size int, err error) {
	if len(data) < 4 {
		return nil, 0, errCut
	}
	n := binary.BigEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-4) {
		return nil, 0, errCut
	}
	size = 4 + int(n)
	raw, err := j.keyring.Open(j.purpose(), data[4:size])
	if err != nil {
		return nil, 0, err
	}
	m = new(weirv1.StreamConfigResponse)
	return m, size, proto.Unmarshal(raw, m)
}

func (j *journal) purpose() string {
	return fmt.Sprintf("configuration of %s, file %s, record %d", j.owner, hex.EncodeToString(j.id[:]), j.records)
}

// write stores what was just accepted: u leads there from what was written
// before. After an error the next write makes a new file.
func (j *journal) write(h *held, u Update) error {
	if j.left {
		return fmt.Errorf("write journal: %w", errHeld)
	}
	var err error
	if j.file == nil || u.Snapshot || j.appended > max(j.base, minCompact) {
		err = j.rewrite(h)
	} else {
		err = j.append(encode(j.at, h.at, u.Puts, u.Deletes))
	}
	if err != nil {
		j.close()
		return fmt.Errorf("write journal: %w", err)
	}
	j.at = h.at.revision
	return nil
}

func (j *journal) append(f *frame) error {
	records := j.seal(nil, f)
	if _, err := j.file.Write(records); err != nil {
		return err
	}
	j.appended += len(records)
	return j.file.Sync()
}

func (j *journal) rewrite(h *held) error {
	j.close()
	rand.Read(j.id[:])
	j.records, j.appended = 0, 0
	data := append([]byte(journalMagic), j.id[:]...)
	all := (&held{resources: h.resources, at: h.at, pendingAll: true}).update().Puts
	data = j.seal(data, encodeSnapshot(h.at, all))
	j.base = len(data)

	file, err := durable.Create(j.path)
	if err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return errors.Join(err, file.Discard())
	}
	if err := file.CommitOpen(); err != nil {
		return err
	}
	j.file = file.File
	return nil
}

func (j *journal) seal(to []byte, f *frame) []byte {
	for _, part := range f.parts {
		raw, err := proto.Marshal(part)
		if err != nil {
			panic(err) // it was unmarshalled from the wire
		}
		sealed := j.keyring.Seal(j.purpose(), raw)
		to = binary.BigEndian.AppendUint32(to, uint32(len(sealed)))
		to = append(to, sealed...)
		j.records++
	}
	return to
}

// leave has nothing written any more.
func (j *journal) leave() {
	j.close()
	j.left = true
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}
