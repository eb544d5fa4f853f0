package node

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/store"
)

// machine is the store as the log feeds it.
type machine struct {
	*store.Store
	s *server
}

var _ cluster.Fuller = machine{}

// Check tries the state of a backup out before it replaces anything.
func (m machine) Check(r io.Reader) error { return tryState(m.s.dir, m.s.keyring, m.s.log, r) }

// tryState restores a state beside everything else and throws it away: whether
// it can be read, and whether the cluster's key opens what is sealed in it.
func tryState(dir string, keyring *identity.Keyring, log *slog.Logger, r io.Reader) error {
	dir, err := os.MkdirTemp(dir, "try-")
	if err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	defer os.RemoveAll(dir)
	trial, err := store.Open(store.Config{Dir: dir, Logger: log})
	if err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	defer trial.Close()
	if err := trial.Restore(r); err != nil {
		return fmt.Errorf("check backup: %w", err)
	}
	return identity.CheckSealed(trial.View(), keyring)
}
