package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	bolt "go.etcd.io/bbolt"
)

// A snapshot is a stream:
//
//	magic, record…, end
//	record = length of the body (4 bytes), its CRC-32C (4), body
//	body   = bucket (1), length of the key (2), key, value
//	end    = a record of bucket 255 with the number of records before it and
//	         the xxHash64 of every byte before it
//
// The records come by bucket and key, so the same state gives the same bytes.
// A record that was damaged is found where it stands; one that was left out,
// doubled or moved is found at the end.
const (
	magic       = "weir state 1\n"
	bucketEnd   = 255
	maxRecord   = 16 << 20
	recordHead  = 8
	restoreStep = 4 << 20 // bytes in one transaction of a restore
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot takes the state as it is now. The write function streams it while
// the store goes on; release must be called once, whether it was written or
// not.
func (s *Store) Snapshot() (write func(io.Writer) error, release func(), err error) {
	if s.stopped.Load() {
		return nil, nil, fmt.Errorf("take snapshot: %w", ErrStopped)
	}
	s.files.RLock()
	defer s.files.RUnlock()
	if err := s.settle(); err != nil {
		return nil, nil, fmt.Errorf("take snapshot: %w", err)
	}
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, nil, fmt.Errorf("take snapshot: %w", err)
	}
	write = func(w io.Writer) error {
		if err := writeSnapshot(tx, w); err != nil {
			return fmt.Errorf("write snapshot: %w", err)
		}
		return nil
	}
	// The one error of Rollback is that it was done before.
	return write, func() { _ = tx.Rollback() }, nil
}

func writeSnapshot(tx *bolt.Tx, w io.Writer) error {
	out := newRecordWriter(w)
	for i, name := range buckets {
		err := tx.Bucket(name).ForEach(func(key, value []byte) error {
			return out.record(byte(i), key, value)
		})
		if err != nil {
			return err
		}
	}
	return out.end()
}

type recordWriter struct {
	out   *bufio.Writer
	sum   *xxhash.Digest
	count uint64
	body  []byte
}

func newRecordWriter(w io.Writer) *recordWriter {
	sum := xxhash.New()
	rw := &recordWriter{out: bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16), sum: sum}
	_, _ = rw.out.WriteString(magic) // an error stays until Flush
	return rw
}

func (w *recordWriter) record(bucket byte, key, value []byte) error {
	w.body = append(w.body[:0], bucket)
	w.body = binary.BigEndian.AppendUint16(w.body, uint16(len(key)))
	w.body = append(append(w.body, key...), value...)
	w.count++
	var head [recordHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(w.body)))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(w.body, castagnoli))
	_, _ = w.out.Write(head[:])
	_, err := w.out.Write(w.body)
	return err
}

func (w *recordWriter) end() error {
	if err := w.out.Flush(); err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint64(nil, w.count)
	value = binary.BigEndian.AppendUint64(value, w.sum.Sum64())
	if err := w.record(bucketEnd, nil, value); err != nil {
		return err
	}
	return w.out.Flush()
}

// Restore replaces the state by a snapshot's. One that is damaged, cut short or
// of a later version is refused, and the state stays as it was. Whoever
// watches starts afresh.
func (s *Store) Restore(r io.Reader) error {
	db, err := createState(s.dir, restoreName)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	path := filepath.Join(s.dir, restoreName)
	content, err := readSnapshot(db, r)
	if err != nil {
		return errors.Join(fmt.Errorf("restore snapshot: %w", err), db.Close(), os.Remove(path))
	}
	// The file stays open while it takes the old one's name.
	if err := os.Rename(path, filepath.Join(s.dir, stateName)); err != nil {
		return errors.Join(fmt.Errorf("restore snapshot: %w", err), db.Close(), os.Remove(path))
	}
	s.files.Lock()
	s.await() // what it writes does not matter any more
	old := s.db
	s.adopt(db, content)
	s.files.Unlock()
	// Waits for a snapshot of the old state that is still being written.
	return old.Close()
}

// readSnapshot fills an empty file and checks that it makes a state.
func readSnapshot(db *bolt.DB, r io.Reader) (*loaded, error) {
	in := newRecordReader(r)
	if err := in.start(); err != nil {
		return nil, err
	}
	for more := true; more; {
		err := db.Update(func(tx *bolt.Tx) (err error) {
			more, err = in.fill(tx)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("at byte %d: %w", in.offset, err)
		}
	}
	return load(db)
}

type recordReader struct {
	in     *bufio.Reader
	sum    *xxhash.Digest
	offset int64 // of the record that is being read
	read   int64
	count  uint64
	body   []byte
	last   []byte // bucket and key of the record before
}

func newRecordReader(r io.Reader) *recordReader {
	return &recordReader{in: bufio.NewReaderSize(r, 1<<16), sum: xxhash.New()}
}

func (r *recordReader) start() error {
	head := make([]byte, len(magic))
	if err := r.full(head); err != nil {
		return err
	}
	if string(head) != magic {
		return errors.New("this is no snapshot of this version")
	}
	r.sum.Write(head)
	return nil
}

func (r *recordReader) full(p []byte) error {
	n, err := io.ReadFull(r.in, p)
	r.read += int64(n)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("it is cut short: %w", io.ErrUnexpectedEOF)
		}
		return err
	}
	return nil
}

// fill stores a few megabytes of records; more is false after the last one.
func (r *recordReader) fill(tx *bolt.Tx) (more bool, err error) {
	for began := r.read; r.read-began < restoreStep; {
		bucket, key, value, err := r.next()
		if err != nil {
			return false, err
		}
		if bucket == bucketEnd {
			return false, r.finish(value)
		}
		b := tx.Bucket(buckets[bucket])
		b.FillPercent = 0.9 // they come in order
		if err := b.Put(bytes.Clone(key), bytes.Clone(value)); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (r *recordReader) next() (bucket byte, key, value []byte, err error) {
	r.offset = r.read
	var head [recordHead]byte
	if err := r.full(head[:]); err != nil {
		return 0, nil, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 3 || size > maxRecord {
		return 0, nil, nil, fmt.Errorf("a record of %d bytes: it is damaged", size)
	}
	if cap(r.body) < int(size) {
		r.body = make([]byte, size)
	}
	r.body = r.body[:size]
	if err := r.full(r.body); err != nil {
		return 0, nil, nil, err
	}
	if crc32.Checksum(r.body, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, nil, errors.New("a checksum does not hold: it is damaged")
	}
	bucket, key, value, err = splitRecord(r.body)
	if err != nil || bucket == bucketEnd {
		return bucket, key, value, err
	}
	place := append([]byte{bucket}, key...)
	if bytes.Compare(place, r.last) <= 0 {
		return 0, nil, nil, errors.New("records are not in their order: it is damaged")
	}
	r.last = place
	r.sum.Write(head[:])
	r.sum.Write(r.body)
	r.count++
	return bucket, key, value, nil
}

func splitRecord(body []byte) (bucket byte, key, value []byte, err error) {
	length := int(binary.BigEndian.Uint16(body[1:]))
	if length > len(body)-3 || body[0] != bucketEnd && (length == 0 || int(body[0]) >= len(buckets)) {
		return 0, nil, nil, errors.New("a record makes no sense: it is damaged")
	}
	return body[0], body[3 : 3+length], body[3+length:], nil
}

// finish compares the whole with what the end says of it.
func (r *recordReader) finish(end []byte) error {
	if len(end) != 16 || binary.BigEndian.Uint64(end) != r.count || binary.BigEndian.Uint64(end[8:]) != r.sum.Sum64() {
		return errors.New("records are missing or were changed: it is damaged")
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		return errors.New("something follows the end")
	}
	return nil
}
