package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/cluster/roster"
)

// Recover makes a member that has lost the majority of its cluster for good the
// origin of a new one, of the members given; all of them but this one must then
// start without a log. It is done on the disk of one survivor, while no member
// runs: what this one holds is taken for agreed on. The state machine is brought
// to it; it must be closed before Start.
func Recover(cfg Config, sm StateMachine, members []Member) error {
	if err := recoverFrom(cfg, sm, members); err != nil {
		return fmt.Errorf("recover cluster: %w", err)
	}
	return nil
}

func recoverFrom(cfg Config, sm StateMachine, members []Member) error {
	if !slices.ContainsFunc(members, func(m Member) bool { return m.Name == cfg.Name }) {
		return fmt.Errorf("%s, on whose disk it is done, must be one of the members", cfg.Name)
	}
	o, err := openOffline(cfg, true)
	if err != nil {
		return err
	}
	defer o.close()
	name, err := o.log.Get(keyMember)
	if err != nil {
		return err
	}
	if len(name) > 0 && string(name) != cfg.Name {
		return fmt.Errorf("the log in %s is that of %s", cfg.Dir, name)
	}
	machine := &recovering{machine: newMachine(sm, o.cfg.SnapshotBytes)}
	defer machine.releaseAll()
	err = raft.RecoverCluster(o.cfg.raft(nil), machine, o.log, o.log, o.snapshots, o.transport, configuration(members))
	if err != nil {
		return err
	}
	return rememberAddresses(o.cfg, members)
}

// recovering is a machine for raft.RecoverCluster, which takes a snapshot and
// never releases it: whoever closes the state machine would wait for that.
type recovering struct {
	*machine
	taken []raft.FSMSnapshot
}

func (r *recovering) Snapshot() (raft.FSMSnapshot, error) {
	s, err := r.machine.Snapshot()
	if err == nil {
		r.taken = append(r.taken, s)
	}
	return s, err
}

func (r *recovering) releaseAll() {
	for _, s := range r.taken {
		s.Release()
	}
}

// configuration makes voters of members. Every member that founds a cluster of
// the same ones makes the same.
func configuration(members []Member) (c raft.Configuration) {
	members = slices.SortedFunc(slices.Values(members), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.Name), Address: raft.ServerAddress(m.Name)})
	}
	return c
}

// rememberAddresses notes where members are said to be, until they say so
// themselves.
func rememberAddresses(cfg Config, members []Member) error {
	known, err := roster.Open(filepath.Join(cfg.Dir, rosterFile))
	if err != nil {
		cfg.Logger.Warn("the roster is begun anew", "reason", err)
	}
	for _, m := range members {
		if m.Name == cfg.Name || m.Address == "" {
			continue
		}
		had, _ := known.Get(m.Name)
		e := roster.Entry{Name: m.Name, Address: m.Address, Newest: max(had.Newest, knownKind), Version: had.Version + 1}
		if _, err := known.Merge(e); err != nil {
			return err
		}
	}
	return nil
}

// offline is a member's disk while it does not run.
type offline struct {
	cfg       Config
	log       *logStore
	snapshots raft.SnapshotStore
	transport raft.Transport
}

// openOffline opens a disk that holds a log, or one that must hold none.
func openOffline(cfg Config, used bool) (*offline, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := &offline{cfg: cfg.withDefaults()}
	var err error
	if o.log, err = openLog(o.cfg); err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, newLogger(o.cfg.Logger))
	var snapshots *snapshots
	if err == nil {
		snapshots, err = openSnapshots(files, cfg.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, o.log.Close())
	}
	o.snapshots, o.log.snapshotEnd = snapshots, snapshots.end
	_, o.transport = raft.NewInmemTransportWithTimeout(raft.ServerAddress(cfg.Name), time.Second)
	found, err := raft.HasExistingState(o.log, o.log, o.snapshots)
	switch {
	case err != nil:
	case found && !used:
		err = fmt.Errorf("there is a log in %s already", cfg.Dir)
	case !found && used:
		err = fmt.Errorf("there is no log in %s", cfg.Dir)
	default:
		return o, nil
	}
	return nil, errors.Join(err, o.log.Close())
}

func (o *offline) close() {
	if err := o.log.Close(); err != nil {
		o.cfg.Logger.Error("cannot close the log", "error", err)
	}
}
