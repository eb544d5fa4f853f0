package store

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// What was decided need not be in the file at once: no file counts that was not
// closed. So it gathers in memory, where a key that changes again costs one write
// and not two, and goes to the file together: when there is much of it, behind the
// back of Apply; and before a snapshot, a blob's chunk, or the end.

// maxUnwritten is how many bytes of entries gather before they are written. As
// many again may come while that goes on; then Apply waits.
const maxUnwritten = 4 << 20

// writeEvery is how old what gathered gets, once more comes: a disk that is full is
// noticed soon, however little there is to write.
const writeEvery = time.Second

// write is what a key of a bucket is to be: a value, a resource that is yet to be
// encoded, or nothing.
type write struct {
	bucket, key []byte
	value       []byte
	resource    *weirv1.Resource
	gone        bool
}

// batch is what is to go into the file in one transaction.
type batch struct {
	writes            map[string]write
	receipts          map[uint32]counted
	bytes             int // of the entries that it is of
	applied, revision uint64
}

// counted is a receipt, with its number among all there ever were.
type counted struct {
	receipt
	count uint64
}

func newBatch() *batch { return &batch{writes: map[string]write{}, receipts: map[uint32]counted{}} }

// add takes in what comes after what is there.
func (b *batch) add(writes []write, receipts []counted, bytes int, applied, revision uint64) {
	for _, w := range writes {
		b.writes[string(w.bucket)+separator+string(w.key)] = w
	}
	for _, r := range receipts {
		b.receipts[uint32(r.count%remembered)] = r
	}
	b.bytes += bytes
	b.applied, b.revision = applied, revision
}

// put writes a batch in the order of its keys, which is that of the file.
func (b *batch) put(tx *bolt.Tx) error {
	for _, place := range slices.Sorted(maps.Keys(b.writes)) {
		if err := b.writes[place].put(tx); err != nil {
			return err
		}
	}
	for _, slot := range slices.Sorted(maps.Keys(b.receipts)) {
		r := b.receipts[slot]
		if err := tx.Bucket(bucketRecent).Put(binary.BigEndian.AppendUint32(nil, slot), r.append(nil, r.count)); err != nil {
			return err
		}
	}
	if err := putNumber(tx, keyRevision, b.revision); err != nil {
		return err
	}
	return putNumber(tx, keyApplied, b.applied)
}

func (w write) put(tx *bolt.Tx) (err error) {
	if w.gone {
		return tx.Bucket(w.bucket).Delete(w.key)
	}
	value := w.value
	if w.resource != nil {
		if value, err = (proto.MarshalOptions{Deterministic: true}).Marshal(w.resource); err != nil {
			return err
		}
	}
	return tx.Bucket(w.bucket).Put(w.key, value)
}

// unwritten is what the file lacks. It belongs to whoever owns the log.
type unwritten struct {
	gathered *batch
	// written is under way to the file, by a goroutine that says on done how that
	// ended; nil: nothing is.
	written *batch
	done    chan error
	since   time.Time // when that last began
	// failed: what was to be written is among what is gathered again, and nothing is
	// taken in before it is written.
	failed bool
}

func newUnwritten() unwritten { return unwritten{gathered: newBatch(), done: make(chan error, 1)} }

// makeRoom has much that is gathered written, so that more may come.
func (s *Store) makeRoom() error {
	u := &s.unwritten
	if u.written != nil {
		select {
		case err := <-u.done:
			s.landed(err)
		default:
			if u.gathered.bytes > maxUnwritten {
				s.landed(<-u.done)
			}
		}
	}
	switch {
	case u.failed:
		return s.settle()
	case u.written == nil && u.gathered.applied > 0 && (u.gathered.bytes > maxUnwritten || time.Since(u.since) > writeEvery):
		u.since = time.Now()
		b, db := u.gathered, s.db
		u.gathered, u.written = newBatch(), b
		go func() { u.done <- db.Update(b.put) }() // whoever owns the store waits for it: landed
	}
	return nil
}

// landed ends what was under way.
func (s *Store) landed(err error) {
	u := &s.unwritten
	later := u.gathered
	if err != nil {
		u.failed = true
		u.gathered = u.written
		u.gathered.bytes += later.bytes
		maps.Copy(u.gathered.writes, later.writes)
		maps.Copy(u.gathered.receipts, later.receipts)
		if later.applied > 0 {
			u.gathered.applied, u.gathered.revision = later.applied, later.revision
		}
	}
	u.written = nil
}

// await waits for what is under way.
func (s *Store) await() {
	if s.unwritten.written != nil {
		s.landed(<-s.unwritten.done)
	}
}

// settle writes all that the file lacks.
func (s *Store) settle() error {
	s.await()
	u := &s.unwritten
	if u.gathered.applied > 0 {
		if err := s.db.Update(u.gathered.put); err != nil {
			u.failed = true
			return fmt.Errorf("write state: %w", err)
		}
		u.gathered = newBatch()
	}
	u.failed = false
	return nil
}
