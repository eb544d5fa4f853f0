package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/weirmesh/weir/internal/durable"
)

// logStore keeps Raft's log, its term and its vote in one bbolt file. It is
// the only durable thing of a member that cannot be made again, so every write
// is synced and every record bears a checksum of its place and its content.
//
// The freelist stays out of the file: it would be written whole at each commit,
// and is found again by one look through the pages at the start.
type logStore struct {
	db   *bolt.DB
	path string

	// What follows is how it bears a disk without space (see space.go).
	full    atomic.Bool
	reserve int64
	free    func(dir string) (bytes int64, known bool)
	mute    chan struct{}

	syncs latencies
}

var (
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")
)

// mappedLog is address space: a file within it grows without being mapped anew.
const mappedLog = 1 << 30

// lockWait is for another process that is about to let go of the file.
const lockWait = time.Second

func openLog(path string) (*logStore, error) {
	if err := verifyLog(path); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mappedLog,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketLog, bucketStable} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = durable.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &logStore{db: db, path: path, free: freeSpace, mute: make(chan struct{})}, nil
}

// makeDir makes a directory, and every name on the way to it durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(parent)
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = errors.New("another process uses it")
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// verifyLog reads the whole of a log that is there. bbolt trusts its pages: on
// one that was damaged it panics, and on one beyond the end of a file that was
// cut short the access itself fails. Opened for reading it does all that in the
// goroutine of who asks, who can turn it into an error; opened for writing, not.
func verifyLog(path string) (err error) {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // it is yet to be made
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read %s: the file is damaged: %v", path, p)
		}
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, ReadOnly: true})
	if err != nil {
		return openError(path, err)
	}
	defer db.Close()
	return (&logStore{db: db, path: path}).check()
}

// check reads every record, and that there are no others.
func (s *logStore) check() error {
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			isLog := bytes.Equal(name, bucketLog)
			if !isLog && !bytes.Equal(name, bucketStable) {
				return fmt.Errorf("read %s: the file is no log of this version, or damaged: it holds %q", s.path, name)
			}
			var last []byte
			return bucket.ForEach(func(key, value []byte) error {
				// Looking it up reads the pages above it too.
				if last != nil && bytes.Compare(key, last) <= 0 || bucket.Get(key) == nil {
					return fmt.Errorf("read record %x from %s: it is out of order, the file is damaged", key, s.path)
				}
				last = key
				content, err := s.open(key, value)
				if err == nil && isLog {
					err = decodeLog(key, content, new(raft.Log))
				}
				return err
			})
		})
	})
}

func (s *logStore) Close() error { return s.db.Close() }

// clear forgets everything.
func (s *logStore) clear() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketLog, bucketStable} {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *logStore) FirstIndex() (uint64, error) { return s.edge((*bolt.Cursor).First) }

func (s *logStore) LastIndex() (uint64, error) { return s.edge((*bolt.Cursor).Last) }

func (s *logStore) edge(of func(*bolt.Cursor) (key, value []byte)) (index uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		if key, _ := of(tx.Bucket(bucketLog).Cursor()); len(key) == 8 {
			index = binary.BigEndian.Uint64(key)
		}
		return nil
	})
	return index, err
}

// newest counts the newest entries that have no more than so many bytes
// together; at the least there is one.
func (s *logStore) newest(size int64) (entries uint64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		for key, value := c.Last(); key != nil; key, value = c.Prev() {
			if size -= int64(len(value)); size < 0 {
				break
			}
			entries++
		}
		return nil
	})
	return max(entries, 1), err
}

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bolt.Tx) error {
		key := binary.BigEndian.AppendUint64(nil, index)
		value := tx.Bucket(bucketLog).Get(key)
		if value == nil {
			return raft.ErrLogNotFound
		}
		content, err := s.open(key, value)
		if err != nil {
			return err
		}
		return decodeLog(key, bytes.Clone(content), l)
	})
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries and syncs them. Its error is ErrNoSpace where the
// disk is full.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if s.lacks() {
		s.full.Store(true)
		return ErrNoSpace
	}
	began := time.Now()
	err := s.spaceError(s.storeLogs(logs))
	if err == nil {
		s.syncs.add(time.Since(began))
		s.full.Store(false)
	}
	return err
}

func (s *logStore) storeLogs(logs []*raft.Log) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.95 // they come in order
		for _, l := range logs {
			key := binary.BigEndian.AppendUint64(nil, l.Index)
			if err := b.Put(key, seal(key, encodeLog(l))); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteRange deletes the entries from min to max, both included.
func (s *logStore) DeleteRange(min, max uint64) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		from := binary.BigEndian.AppendUint64(nil, min)
		for key, _ := c.Seek(from); len(key) == 8 && binary.BigEndian.Uint64(key) <= max; key, _ = c.Seek(from) {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *logStore) Set(key, value []byte) error {
	return s.insist(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketStable).Put(key, seal(key, append(make([]byte, sumSize), value...)))
		})
	})
}

func (s *logStore) Get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		sealed := tx.Bucket(bucketStable).Get(key)
		if sealed == nil {
			return nil
		}
		content, err := s.open(key, sealed)
		value = bytes.Clone(content)
		return err
	})
	return value, err
}

func (s *logStore) SetUint64(key []byte, n uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, n))
}

func (s *logStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("read %s from %s: %d bytes are no number", key, s.path, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// A record begins with the CRC-32C of its key and of what follows.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, content []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, content)
}

// seal fills in the checksum, for which the record has left room.
func seal(key, record []byte) []byte {
	binary.BigEndian.PutUint32(record, checksum(key, record[sumSize:]))
	return record
}

func (s *logStore) open(key, record []byte) ([]byte, error) {
	if len(record) < sumSize || binary.BigEndian.Uint32(record) != checksum(key, record[sumSize:]) {
		return nil, fmt.Errorf("read record %x from %s: its checksum does not hold, the file is damaged", key, s.path)
	}
	return record[sumSize:], nil
}

// entryHead is what stands before the extensions and the data of an entry:
// type, term, time and the extensions' length.
const entryHead = 1 + 8 + 8 + 4

func encodeLog(l *raft.Log) []byte {
	b := make([]byte, sumSize, sumSize+entryHead+len(l.Extensions)+len(l.Data))
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	var appended int64
	if !l.AppendedAt.IsZero() {
		appended = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(appended))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	return append(append(b, l.Extensions...), l.Data...)
}

// decodeLog reads an entry that goes on to use the content's memory.
func decodeLog(key, content []byte, l *raft.Log) error {
	if len(key) != 8 || len(content) < entryHead || uint64(binary.BigEndian.Uint32(content[entryHead-4:])) > uint64(len(content)-entryHead) {
		return fmt.Errorf("read entry %x: it is cut short", key)
	}
	extended := entryHead + int(binary.BigEndian.Uint32(content[entryHead-4:]))
	*l = raft.Log{
		Index:      binary.BigEndian.Uint64(key),
		Type:       raft.LogType(content[0]),
		Term:       binary.BigEndian.Uint64(content[1:]),
		Extensions: content[entryHead:extended],
		Data:       content[extended:],
	}
	if appended := int64(binary.BigEndian.Uint64(content[9:])); appended != 0 {
		l.AppendedAt = time.Unix(0, appended)
	}
	return nil
}
