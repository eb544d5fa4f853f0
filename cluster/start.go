package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/cluster/roster"
	"github.com/weirmesh/weir/internal/durable"
)

// open opens what the member keeps on its disk.
func (n *Node) open() (err error) {
	if err := durable.MakeDir(n.cfg.Dir); err != nil {
		return err
	}
	if n.roster, err = roster.Open(filepath.Join(n.cfg.Dir, rosterFile)); err != nil {
		// The others will tell.
		n.cfg.Logger.Warn("the roster is begun anew", "reason", err)
	}
	if n.log, err = openLog(n.cfg); err != nil {
		return err
	}
	n.machine.agreed = n.log.NoteAgreed
	if n.cfg.free != nil {
		n.log.free = n.cfg.free
	}
	return nil
}

func (n *Node) start() error {
	conf := n.cfg.raft(n.leading)
	if err := clearInterrupted(n.cfg.Dir); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, 2, conf.Logger)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if n.snapshots, err = openSnapshots(files, n.cfg.Dir); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	n.log.snapshotEnd = n.snapshots.end
	n.machine.snapshotSize = n.snapshots.size
	// Raft syncs what is inside its directory, not the directory's own name.
	if err := durable.SyncDir(n.cfg.Dir); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if conf.NoSnapshotRestoreOnStart, err = n.replay(n.snapshots); err != nil {
		return err
	}
	if err := n.announce(); err != nil {
		return err
	}
	transport := n.connect(conf)
	if err := n.found(conf, n.snapshots, transport); err != nil {
		return err
	}
	used, err := raft.HasExistingState(n.log, n.log, n.snapshots)
	if err != nil {
		return err
	}
	n.blank.Store(!used && n.cfg.Network != nil)
	if n.raft, err = n.newRaft(conf, n.snapshots, transport); err != nil {
		return err
	}
	if err := n.checkMember(); err != nil {
		return err
	}
	n.run()
	return nil
}

// connect makes Raft's transport; a member without a network has one that
// leads nowhere.
func (n *Node) connect(conf *raft.Config) raft.Transport {
	if n.cfg.Network == nil {
		_, alone := raft.NewInmemTransport(raft.ServerAddress(n.cfg.Name))
		return alone
	}
	n.transport = newTransport(n, conf)
	n.minding.Go(n.transport.arrivals.run)
	return n.transport
}

func (n *Node) run() {
	n.serving.Go(n.gather)
	n.serving.Go(n.deliver)
	n.serving.Go(n.verify)
	n.minding.Go(n.lead)
	n.minding.Go(n.compact)
	n.minding.Go(n.noteAgreed)
	n.minding.Go(n.observe)
	n.minding.Go(n.steward)
	if n.cfg.Network != nil {
		n.minding.Go(n.accept)
		n.minding.Go(n.spread)
	}
	n.electAlone()
}

// clearInterrupted removes snapshots whose writing or coming over the network
// was interrupted.
func clearInterrupted(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp"))
	for _, part := range parts {
		err = errors.Join(err, os.RemoveAll(part))
	}
	return err
}

// reconcile compares what the state machine holds with the log and the
// snapshots: whether it can do without the newest snapshot.
func (n *Node) reconcile(snapshots raft.SnapshotStore) (ahead bool, err error) {
	last, err := n.log.LastIndex()
	if err != nil {
		return false, err
	}
	list, err := snapshots.List()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	applied := n.machine.Applied()
	if len(list) > 0 {
		last, ahead = max(last, list[0].Index), applied >= list[0].Index
	}
	if applied > last {
		return false, fmt.Errorf("the state is at %d, but the log in %s ends at %d: it is not this state's log, or a part of it is lost", applied, n.cfg.Dir, last)
	}
	return ahead, nil
}

// found makes a new log that of a cluster of those who found it. Founding is
// two writes; a log that holds only the first was never anyone's, and is founded
// again. A member that founds nothing leaves the log empty.
func (n *Node) found(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) error {
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil || last > 0 || len(list) > 0 {
		return err
	}
	// One that waits to be let in has left its name.
	name, err := n.log.Get(keyMember)
	if err != nil {
		return err
	}
	if n.cfg.Existing && len(name) == 0 {
		return fmt.Errorf("there is no log in %s, though this member had one: it is lost, or the directory is the wrong one", n.cfg.Dir)
	}
	founders := n.cfg.Found
	if n.cfg.Network == nil {
		founders = []Member{{Name: n.cfg.Name}}
	}
	if len(founders) == 0 {
		return nil
	}
	if err := n.log.Clear(); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if err := n.rememberFounders(); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if err := raft.BootstrapCluster(conf, n.log, n.log, snapshots, transport, configuration(founders)); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}

// rememberFounders notes where the others are said to be, until they say so
// themselves.
func (n *Node) rememberFounders() error {
	for _, m := range n.cfg.Found {
		if m.Name == n.cfg.Name || m.Address == "" {
			continue
		}
		if _, err := n.roster.Merge(roster.Entry{Name: m.Name, Address: m.Address, Newest: knownKind, Version: 1}); err != nil {
			return err
		}
	}
	return nil
}

// newRaft turns the panic by which Raft says that the log does not go on from
// the newest snapshot that it could restore into an error. Nothing runs yet
// when that happens.
func (n *Node) newRaft(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if err != nil && n.unrestored != nil {
			err = fmt.Errorf("%w (%w)", n.unrestored, err)
		}
		if p := recover(); p != nil {
			err = fmt.Errorf("the log in %s does not go on from the newest snapshot that can be read: %v", n.cfg.Dir, p)
		}
	}()
	return raft.NewRaft(conf, n.machine, n.log, n.log, snapshots, transport)
}

// keyMember is where the log keeps whose it is.
var keyMember = []byte("Member")

// checkMember makes sure that the log is this member's, and says so in a new
// one. Logs of earlier versions only say who is in the configuration.
func (n *Node) checkMember() error {
	name, err := n.log.Get(keyMember)
	if err != nil {
		return err
	}
	if string(name) == n.cfg.Name {
		return nil
	}
	members := n.members()
	if len(name) > 0 || len(members) > 0 && !n.isMember(n.cfg.Name) {
		return fmt.Errorf("the log in %s is another member's: it knows %s", n.cfg.Dir, members)
	}
	return n.log.Set(keyMember, []byte(n.cfg.Name))
}

// electAlone spares a member that has no one to wait for the wait: a shorter
// timeout makes Raft look at once whether it has run out.
func (n *Node) electAlone() {
	if voters := n.voters(); len(voters) != 1 || voters[0] != n.cfg.Name {
		return
	}
	conf := n.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = n.cfg.Election, n.cfg.Election
	if err := n.raft.ReloadConfig(conf); err != nil {
		// Then it waits after all.
		n.cfg.Logger.Warn("cannot speed up the election", "error", err)
	}
}
