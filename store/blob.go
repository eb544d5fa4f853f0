package store

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Blobs are content by its digest, stored in chunks and readable once all of it
// is there and the digest holds. A blob that resources refer to stays as long
// as they do and goes with the last of them. One that nothing refers to (yet)
// is kept for the push that is going on: the newest few are, and every new
// push drops those beyond that, and those whose last chunk is long past by the
// clock of the commands.
const (
	// MaxBlob bounds the size of a blob.
	MaxBlob = 64 << 20
	// MaxChunk bounds a chunk.
	MaxChunk = 512 << 10

	maxIdleBlobs    = 16
	maxIdleBlobTime = 3600 // seconds
)

// blob is what is known of one; its bytes are in bucketChunks.
type blob struct {
	size, stored uint64
	// touched is the time of the last chunk, in seconds.
	touched int64
}

func (b blob) whole() bool { return b.stored == b.size }

func (b blob) append(to []byte) []byte {
	to = binary.BigEndian.AppendUint64(to, b.size)
	to = binary.BigEndian.AppendUint64(to, b.stored)
	return binary.BigEndian.AppendUint64(to, uint64(b.touched))
}

func readBlob(value []byte) (blob, error) {
	if len(value) != 24 {
		return blob{}, errors.New("read a blob's size: it is cut short")
	}
	b := blob{
		size:    binary.BigEndian.Uint64(value),
		stored:  binary.BigEndian.Uint64(value[8:]),
		touched: int64(binary.BigEndian.Uint64(value[16:])),
	}
	if b.stored > b.size || b.size > MaxBlob {
		return blob{}, fmt.Errorf("read a blob's size: %d of %d bytes", b.stored, b.size)
	}
	return b, nil
}

// chunkKey sorts the chunks of a blob by their offset.
func chunkKey(digest string, offset uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(digest+separator), offset)
}

func (d *draft) putBlobChunk(c *weirv1.PutBlobChunk, at *timestamppb.Timestamp) (*RefusedError, error) {
	ref := blobRef(c.GetDigest())
	if message := checkChunk(c); message != "" {
		return refuse(ref, Invalid, "%s", message), nil
	}
	b, known := d.blobs.Get([]byte(c.GetDigest()))
	switch {
	case known && b.whole() && b.size != c.GetSize():
		return refuse(ref, Invalid, "it has %d bytes, not %d", b.size, c.GetSize()), nil
	case known && b.whole():
		b.touched = at.GetSeconds()
		d.putBlob(c.GetDigest(), b)
		return nil, nil
	case !known || b.size != c.GetSize() && c.GetOffset() == 0:
		if err := d.dropIdleBlobs(at.GetSeconds()); err != nil {
			return nil, err
		}
		if err := d.dropBlob(c.GetDigest()); err != nil {
			return nil, err
		}
		b = blob{size: c.GetSize()}
	case b.size != c.GetSize():
		return refuse(ref, Conflict, "it is being stored with a size of %d, not %d", b.size, c.GetSize()), nil
	}
	end := c.GetOffset() + uint64(len(c.GetChunk()))
	if c.GetOffset() < b.stored && end <= b.stored {
		return nil, nil // sent twice; should it differ, the digest will tell
	}
	if c.GetOffset() != b.stored {
		return refuse(ref, Conflict, "the next chunk begins at %d, not %d", b.stored, c.GetOffset()), nil
	}
	b.stored, b.touched = end, at.GetSeconds()
	tx, err := d.file()
	if err == nil {
		err = tx.Bucket(bucketChunks).Put(chunkKey(c.GetDigest(), c.GetOffset()), c.GetChunk())
	}
	if err != nil {
		return nil, err
	}
	if b.whole() {
		return d.completeBlob(tx, c.GetDigest(), b)
	}
	d.putBlob(c.GetDigest(), b)
	return nil, nil
}

// completeBlob admits a blob whose last chunk has come, if it is what its
// digest says. Otherwise the upload is dropped, to begin anew.
func (d *draft) completeBlob(tx *bolt.Tx, digest string, b blob) (*RefusedError, error) {
	sum := sha256.New()
	hashChunks(tx, digest, sum)
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest {
		return refuse(blobRef(digest), Invalid, "the content's digest is %s", got), d.dropBlob(digest)
	}
	d.putBlob(digest, b)
	return nil, nil
}

func hashChunks(tx *bolt.Tx, digest string, into hash.Hash) {
	prefix := []byte(digest + separator)
	c := tx.Bucket(bucketChunks).Cursor()
	for key, chunk := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, chunk = c.Next() {
		into.Write(chunk)
	}
}

func checkChunk(c *weirv1.PutBlobChunk) string {
	switch {
	case !validDigest(c.GetDigest()):
		return `a digest is "sha256:" and 64 hexadecimal digits in lower case`
	case c.GetSize() == 0 || c.GetSize() > MaxBlob:
		return fmt.Sprintf("a blob has 1 to %d bytes, not %d", MaxBlob, c.GetSize())
	case len(c.GetChunk()) == 0 || len(c.GetChunk()) > MaxChunk:
		return fmt.Sprintf("a chunk has 1 to %d bytes, not %d", MaxChunk, len(c.GetChunk()))
	case c.GetOffset() > c.GetSize() || uint64(len(c.GetChunk())) > c.GetSize()-c.GetOffset():
		return fmt.Sprintf("a chunk of %d bytes at %d goes beyond the size of %d", len(c.GetChunk()), c.GetOffset(), c.GetSize())
	}
	return ""
}

func validDigest(s string) bool {
	digits, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(digits) == 2*sha256.Size && strings.Trim(digits, "0123456789abcdef") == ""
}

// dropIdleBlobs makes room for a new one.
func (d *draft) dropIdleBlobs(now int64) error {
	type idleBlob struct {
		digest  string
		touched int64
	}
	var idle []idleBlob
	for key, b := range scan(d.blobs.Root(), nil, nil) {
		if digest := string(key); !d.referredTo(blobRef(digest)) {
			idle = append(idle, idleBlob{digest, b.touched})
		}
	}
	slices.SortFunc(idle, func(a, b idleBlob) int {
		return cmp.Or(cmp.Compare(b.touched, a.touched), strings.Compare(a.digest, b.digest))
	})
	for i, b := range idle {
		if i < maxIdleBlobs-1 && now-b.touched <= maxIdleBlobTime {
			continue
		}
		if err := d.dropBlob(b.digest); err != nil {
			return err
		}
	}
	return nil
}

func (d *draft) putBlob(digest string, b blob) {
	d.blobs.Insert([]byte(digest), b)
	d.put(bucketBlobs, []byte(digest), b.append(nil))
}

func (d *draft) dropBlob(digest string) error {
	if _, found := d.blobs.Delete([]byte(digest)); !found {
		return nil
	}
	tx, err := d.file()
	if err != nil {
		return err
	}
	prefix := []byte(digest + separator)
	c := tx.Bucket(bucketChunks).Cursor()
	for key, _ := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = c.Seek(prefix) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	d.drop(bucketBlobs, []byte(digest))
	return nil
}

func (d *draft) referredTo(ref resource.Ref) bool {
	for range scan(d.referrers.Root(), referrersPrefix(ref), nil) {
		return true
	}
	return false
}

// Blob is a reader of stored content. It holds nothing open between two reads.
type Blob struct {
	// Size is that of the whole.
	Size uint64

	store  *Store
	digest string
	offset uint64
}

// Blob returns a reader of content that is stored whole, or false.
func (s *Store) Blob(digest string) (*Blob, bool) {
	size, ok := s.View().BlobSize(digest)
	return &Blob{Size: size, store: s, digest: digest}, ok
}

// Read reads on. A blob that is collected meanwhile ends in an error.
func (b *Blob) Read(p []byte) (n int, err error) {
	if b.offset == b.Size {
		return 0, io.EOF
	}
	b.store.files.RLock()
	defer b.store.files.RUnlock()
	err = b.store.db.View(func(tx *bolt.Tx) error {
		n = copy(p, chunkFrom(tx, b.digest, b.offset))
		return nil
	})
	if err == nil && n == 0 && len(p) > 0 {
		err = errors.New("it is no longer stored")
	}
	if err != nil {
		return 0, fmt.Errorf("read blob %s: %w", b.digest, err)
	}
	b.offset += uint64(n)
	return n, nil
}

// chunkFrom returns what is stored from an offset to the end of its chunk.
func chunkFrom(tx *bolt.Tx, digest string, offset uint64) []byte {
	at := chunkKey(digest, offset)
	c := tx.Bucket(bucketChunks).Cursor()
	key, chunk := c.Seek(at)
	if !bytes.Equal(key, at) {
		key, chunk = c.Prev()
	}
	if prefix := len(digest + separator); len(key) == len(at) && bytes.Equal(key[:prefix], at[:prefix]) {
		if skip := offset - binary.BigEndian.Uint64(key[prefix:]); skip < uint64(len(chunk)) {
			return chunk[skip:]
		}
	}
	return nil
}
