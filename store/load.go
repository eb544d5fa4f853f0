package store

import (
	"bytes"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// loaded is a state file's content, as far as it lives in memory.
type loaded struct {
	view    *View
	memory  *memory
	applied uint64
}

// load reads a state file and checks all that it reads.
func load(db *bolt.DB) (l *loaded, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("there is no bucket %s", name)
			}
		}
		if is, err := number(tx, keyFormat); err != nil || is != format {
			return errors.Join(fmt.Errorf("its format is %d, not %d", is, format), err)
		}
		l, err = loadBuckets(tx)
		return err
	})
	return l, err
}

func loadBuckets(tx *bolt.Tx) (*loaded, error) {
	d, m := newDraft(emptyView(), nil), newMemory()
	readers := map[*[]byte]func(key, value []byte) error{
		&bucketResources: d.loadResource,
		&bucketValues: func(key, value []byte) error {
			d.values.Insert(bytes.Clone(key), bytes.Clone(value))
			return nil
		},
		&bucketBlobs: func(key, value []byte) error {
			b, err := readBlob(value)
			d.blobs.Insert(bytes.Clone(key), b)
			return err
		},
		&bucketRecent: m.load,
		&bucketLeases: d.loadLease,
	}
	for name, read := range readers {
		if err := tx.Bucket(*name).ForEach(read); err != nil {
			return nil, err
		}
	}
	applied, err := number(tx, keyApplied)
	if err != nil {
		return nil, err
	}
	if d.revision, err = number(tx, keyRevision); err != nil {
		return nil, err
	}
	return &loaded{view: d.view(), memory: m, applied: applied}, nil
}

func (d *draft) loadResource(key, value []byte) error {
	r := new(weirv1.Resource)
	if err := reading.Unmarshal(value, r); err != nil {
		return fmt.Errorf("read resource %q: %w", key, err)
	}
	ref := resource.Of(r)
	if !bytes.Equal(resourceKey(ref), key) {
		return fmt.Errorf("read resource %q: it is %s", key, ref)
	}
	d.resources.Insert(bytes.Clone(key), r)
	for to := range resource.References(r) {
		d.referrers.Insert(referrerKey(to.To, ref), ref)
	}
	return nil
}
