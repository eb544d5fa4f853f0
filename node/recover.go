package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/durable"
	"github.com/weirmesh/weir/store"
)

// RecoverConfig says how a cluster begins anew that has lost its majority for
// good. No server of it may run meanwhile.
type RecoverConfig struct {
	// Data is the directory of the server that it begins with. Without From that
	// is a survivor, whose state it goes on from.
	Data string
	// Name is that server's. It may be empty for a survivor, which knows it.
	Name string
	// Members are all that the new cluster has, with their addresses; the others
	// start with empty directories and join. Empty: that server alone.
	Members []Member
	// From is a backup to begin with, in an empty directory that holds nothing but
	// the keyring of the cluster that the backup is of.
	From   string
	Logger *slog.Logger
}

// Member is a server, and where the others find it.
type Member struct{ Name, Address string }

// recoveredFile is there from a recovery out of a backup until the server has an
// identity, and has left its operator an admin.env: it stands for one whose disk is
// lost, and so may what was on the operator's.
const recoveredFile = "recovered"

// recovered ends what the file stands for.
func (s *server) recovered() error {
	if !s.has(recoveredFile) {
		return nil
	}
	if err := os.Remove(filepath.Join(s.dir, recoveredFile)); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	return durable.SyncDir(s.dir)
}

// Recover makes a server the origin of a new cluster, offline.
func Recover(cfg RecoverConfig) error {
	if err := recoverServer(cfg); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

func recoverServer(cfg RecoverConfig) error {
	if _, err := os.Stat(cfg.Data); err != nil {
		return fmt.Errorf("there is no data directory: %w", err)
	}
	lock, err := lockDir(cfg.Data, nil)
	if err != nil {
		return err
	}
	defer lock.Close()
	if cfg.From != "" {
		return recoverFromBackup(cfg)
	}
	return recoverSurvivor(cfg)
}

func (c RecoverConfig) cluster(name string) cluster.Config {
	return cluster.Config{Name: name, Dir: filepath.Join(c.Data, "raft"), Logger: c.Logger}
}

// recoverSurvivor goes on from what a survivor's disk holds.
func recoverSurvivor(cfg RecoverConfig) (err error) {
	node, err := identity.Open(filepath.Join(cfg.Data, "identity"))
	if err != nil {
		return err
	}
	name := node.ID().Name
	switch {
	case !node.Joined():
		return fmt.Errorf("%s is not the data directory of a server that was a member", cfg.Data)
	case cfg.Name != "" && cfg.Name != name:
		return fmt.Errorf("%s is the data directory of %s, not of %s", cfg.Data, name, cfg.Name)
	}
	alone := []cluster.Member{{Name: name}}
	switch {
	case len(cfg.Members) > 1, len(cfg.Members) == 1 && cfg.Members[0].Name != name:
		return fmt.Errorf("the new cluster begins with %s alone, and the others join it: leave out --members", name)
	case len(cfg.Members) == 1:
		alone[0].Address = cfg.Members[0].Address
	}
	state, err := store.Open(store.Config{Dir: filepath.Join(cfg.Data, "state"), Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	return cluster.Recover(cfg.cluster(name), state, alone)
}

// recoverFromBackup founds a cluster that holds what a backup does.
func recoverFromBackup(cfg RecoverConfig) error {
	switch {
	case len(cfg.Members) > 1, len(cfg.Members) == 1 && cfg.Name != "" && cfg.Name != cfg.Members[0].Name:
		return errors.New("the new cluster begins with one server, and the others join it: name that one alone")
	case cfg.Name == "" && len(cfg.Members) == 1:
		cfg.Name = cfg.Members[0].Name
	case cfg.Name == "":
		return errors.New("say the server's name, with --name")
	}
	keyring, err := identity.ReadKeyring(identity.LocateKeyring(cfg.Data))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the backup can only be used with the keyring of its cluster: put a copy at %s", identity.LocateKeyring(cfg.Data))
	}
	if err != nil {
		return err
	}
	f, err := os.Open(cfg.From)
	if err != nil {
		return err
	}
	defer f.Close()
	err = cluster.FoundFrom(cfg.cluster(cfg.Name), "", bufio.NewReader(f), func(state io.Reader) error {
		return tryState(cfg.Data, keyring, cfg.Logger, state)
	})
	if err != nil {
		return fmt.Errorf("begin with %s: %w", cfg.From, err)
	}
	return durable.WriteFile(filepath.Join(cfg.Data, recoveredFile), nil)
}
