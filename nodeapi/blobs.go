package nodeapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weirmesh/weir/internal/durable"
)

// maxBlob bounds what a server may send as one blob.
const maxBlob = 128 << 20

const digestPrefix = "sha256:"

// blobs keeps content on disk under its digest. What is read is verified: a
// file that rotted is removed, and fetched again.
type blobs struct{ dir string }

// checkDigest keeps a digest from being anything but one, a path above all.
func checkDigest(digest string) (hexadecimal string, err error) {
	sum, ok := strings.CutPrefix(digest, digestPrefix)
	if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size || sum != strings.ToLower(sum) {
		return "", fmt.Errorf("%q is not sha256: and 64 hexadecimal digits", truncate(digest, 100))
	}
	return sum, nil
}

func verifyBlob(digest string, data []byte) error {
	sum := sha256.Sum256(data)
	if got := digestPrefix + hex.EncodeToString(sum[:]); got != digest {
		return fmt.Errorf("its digest is %s, not %s", got, digest)
	}
	return nil
}

// get returns nil when the blob is not there.
func (b blobs) get(digest string) ([]byte, error) {
	sum, err := checkDigest(digest)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, sum)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := verifyBlob(digest, data); err != nil {
		return nil, errors.Join(fmt.Errorf("cached blob %s is damaged: %w", path, err), os.Remove(path))
	}
	return data, nil
}

func (b blobs) put(digest string, data []byte) error {
	sum, err := checkDigest(digest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(b.dir, sum), data)
}

// keepOnly removes the blobs that nothing refers to any more.
func (b blobs) keepOnly(digests map[string]struct{}) error {
	entries, err := os.ReadDir(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		if _, ok := digests[digestPrefix+e.Name()]; !ok {
			errs = append(errs, os.Remove(filepath.Join(b.dir, e.Name())))
		}
	}
	return errors.Join(append(errs, err)...)
}
