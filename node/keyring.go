package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/weirmesh/weir/identity"
)

// NewKeyring makes a file with a new cluster key, for servers that found a
// cluster together: each gets a copy. A file that is there stays.
func NewKeyring(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("make keyring %s: %w", path, err)
	}
	if _, err := identity.OpenKeyring(path); err != nil {
		return fmt.Errorf("make keyring: %w", err)
	}
	return nil
}
