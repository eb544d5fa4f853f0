package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/internal/durable"
)

// The files of a store.
const (
	stateName   = "state.db"
	restoreName = "state.restore"
	closedName  = "state.closed"
	lockName    = "lock"
)

// format is the layout of the buckets. A file of another format is rebuilt
// from the log; a snapshot of a later one is refused.
const format = 1

// The buckets of state.db. Their order is that of a snapshot's records.
var (
	bucketMeta      = []byte("meta")
	bucketResources = []byte("resources")
	bucketValues    = []byte("values")
	bucketBlobs     = []byte("blobs")
	bucketChunks    = []byte("chunks")
	bucketRecent    = []byte("recent")
	bucketLeases    = []byte("leases")
	bucketUsage     = []byte("usage")
	bucketReported  = []byte("reported")

	buckets = [][]byte{bucketMeta, bucketResources, bucketValues, bucketBlobs, bucketChunks, bucketRecent, bucketLeases, bucketUsage, bucketReported}
)

// The keys of bucketMeta, each a number unless it says otherwise.
var (
	keyFormat   = []byte("format")
	keyApplied  = []byte("applied")
	keyRevision = []byte("revision")
	keySwept    = []byte("swept") // where the search for epochs to forget has come to: a key
)

// mapped is how much address space a file gets at once. Beyond it a growing
// file must be mapped again, for which a write waits until a snapshot that is
// being streamed is done.
const mapped = 1 << 30

// createState makes an empty state under a name, in place of what was there.
func createState(dir, name string) (*bolt.DB, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return putNumber(tx, keyFormat, format)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, err), db.Close())
	}
	return db, nil
}

func openBolt(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		NoSync:          true,
		NoGrowSync:      true,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapped,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// closedNote is what Close leaves beside a state that is whole.
type closedNote struct {
	Applied uint64 `json:"applied"`
	Size    int64  `json:"size"`
	Sum     uint64 `json:"sum"`
}

func noteClosed(dir string, applied uint64) error {
	size, sum, err := checksum(filepath.Join(dir, stateName))
	if err != nil {
		return err
	}
	data, err := json.Marshal(closedNote{Applied: applied, Size: size, Sum: sum})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, closedName), data)
}

// errNothing: the directory is new.
var errNothing = errors.New("there is no state yet")

// reopenState opens the state that was closed. An error says why there is none
// that may be trusted; the note is gone then, durably, as it is on success:
// before the first write.
func reopenState(dir string) (*bolt.DB, error) {
	path, state := filepath.Join(dir, closedName), filepath.Join(dir, stateName)
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
		return nil, errNothing
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it was not closed")
	}
	if err == nil {
		err = errors.Join(os.Remove(path), durable.SyncDir(dir))
	}
	if err != nil {
		return nil, err
	}
	var note closedNote
	if err := json.Unmarshal(data, &note); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	size, sum, err := checksum(state)
	if err != nil {
		return nil, err
	}
	if size != note.Size || sum != note.Sum {
		return nil, fmt.Errorf("%s has changed since it was closed", state)
	}
	return openEarlier(state)
}

// openEarlier opens a state that an earlier version may have closed, which had fewer
// buckets.
func openEarlier(path string) (*bolt.DB, error) {
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

func checksum(path string) (size int64, sum uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	hash := xxhash.New()
	size, err = io.Copy(hash, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", path, err)
	}
	return size, hash.Sum64(), nil
}

// lockDir keeps a second process out. The lock goes with the file.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another process uses it: %w", dir, err), f.Close())
	}
	return f, nil
}

func putNumber(tx *bolt.Tx, key []byte, n uint64) error {
	return tx.Bucket(bucketMeta).Put(key, binary.BigEndian.AppendUint64(nil, n))
}

func number(tx *bolt.Tx, key []byte) (uint64, error) {
	value := tx.Bucket(bucketMeta).Get(key)
	switch len(value) {
	case 0:
		return 0, nil
	case 8:
		return binary.BigEndian.Uint64(value), nil
	}
	return 0, fmt.Errorf("read %s: %d bytes are no number", key, len(value))
}
