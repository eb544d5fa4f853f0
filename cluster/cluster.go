// Package cluster is the log: an order of commands that members agree on and
// that nothing can take back. It knows nothing of what a command does; that is
// for the [StateMachine] that it feeds.
//
//	Propose ─▶ gather ─▶ entry ─▶ raft ─▶ log.db (synced) ─▶ commit ─▶ Apply
//	   ▲                                                                 │
//	   └──────────────────────── each its own result ◀───────────────────┘
//
// A [Node] is this process's member. [Node.Propose] returns once the command
// was applied here; [Node.ReadBarrier] returns once everything that was
// acknowledged anywhere before the call can be read here.
//
// # Promise
//
// A result means that the command is on the disks of a quorum and was applied
// at a place in the order that it keeps for ever. An error says which of three
// things happened: [ErrNotLeader], [ErrClosed] and [ErrTooLarge], and a context
// that ended while the command still waited: it was not done. [ErrUnknown]: it
// may have been done, or still be. A state machine that remembers command ids
// makes it safe to propose it again.
//
// # Group commit
//
// What waits while an entry is being written goes into the next entry
// together, up to 512 KiB (docs/decisions/group-commit.md). Commands of an entry
// share its index and its sync, and nothing else: each is decided by itself and
// each caller gets his own result.
//
// # Determinism
//
// The proposer puts into a command what must not be decided twice: an id and
// the time, where the caller left them out. From there on only the bytes
// travel.
//
// # Durability
//
// An entry is synced before it counts. Log, term and vote are in log.db with a
// checksum on each record, for bbolt has none on its pages: Start reads all of
// them and refuses a log that was damaged, rather than to apply it. Snapshots
// lie beside it. Which of them the state machine needs follows from its own
// Applied: one that lost its state gets the newest snapshot and what follows,
// one that has it gets only what it has not seen.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/internal/durable"
)

// What an error of Propose and ReadBarrier may be.
var (
	// ErrNotLeader: not done. Another member leads, or none.
	ErrNotLeader = errors.New("this member is not the leader")
	// ErrClosed: not done. The node is closing.
	ErrClosed = errors.New("node is closed")
	// ErrTooLarge: not done. The command has more than MaxCommand bytes.
	ErrTooLarge = errors.New("command is too large")
	// ErrUnknown: it may have been done, or still be.
	ErrUnknown = errors.New("outcome is unknown")
)

// Config says who this member is. It does not change once the node runs.
type Config struct {
	// Name is the member's, for ever: the log knows it by no other.
	Name string
	// Dir is the node's own directory; it is made where it is missing.
	Dir string
	// Address is where others find this member. Empty: its name.
	Address string
	// Existing: the member is known to have had a log. Where there is none it is
	// lost, and nothing is founded in its place.
	Existing bool
	// Logger hears what an operator must know, and with debug all that Raft
	// says. nil: nothing is heard.
	Logger *slog.Logger

	// Election is how long members wait for a sign of their leader before they
	// elect another. 0: 300 ms.
	Election time.Duration
	// SnapshotEntries and SnapshotBytes are how much log may gather before it
	// is compacted into a snapshot. 0: 8,192 entries, 64 MiB.
	SnapshotEntries uint64
	SnapshotBytes   int64
}

func (c Config) withDefaults() Config {
	if c.Address == "" {
		c.Address = c.Name
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Election == 0 {
		c.Election = 300 * time.Millisecond
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 8192
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 64 << 20
	}
	return c
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("a member needs a name")
	case c.Dir == "":
		return errors.New("a member needs a directory")
	case c.Election < 0 || c.Election > 0 && c.Election < 10*time.Millisecond:
		return fmt.Errorf("an election timeout of %s is too short: 10ms is the least", c.Election)
	case c.SnapshotBytes < 0:
		return fmt.Errorf("a log cannot be bounded by %d bytes", c.SnapshotBytes)
	}
	return nil
}

// trailing is how many entries stay in the log behind a snapshot, for members
// that lag a little.
const trailing = 4096

func (c Config) raft(notify chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.Name)
	conf.Logger = newLogger(c.Logger)
	conf.NotifyCh = notify
	// One millisecond more than is meant, for electAlone to take away.
	conf.HeartbeatTimeout = c.Election + time.Millisecond
	conf.ElectionTimeout = c.Election + time.Millisecond
	conf.LeaderLeaseTimeout = c.Election * 5 / 6
	conf.CommitTimeout = min(conf.CommitTimeout, c.Election/4)
	conf.SnapshotInterval = 30 * time.Second
	conf.SnapshotThreshold = c.SnapshotEntries
	conf.TrailingLogs = trailing
	// A member that is removed stays a follower: its owner decides when it ends.
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	return conf
}

// Node is one running member.
type Node struct {
	cfg     Config
	log     *logStore
	raft    *raft.Raft
	machine *machine

	proposals chan *proposal
	flights   chan flight
	reads     chan *read
	leading   chan bool

	// calls counts the Proposes and ReadBarriers under way; none begins once
	// closing is closed.
	mu      sync.Mutex
	calls   sync.WaitGroup
	closing chan struct{}
	// serving are the goroutines that answer calls, and end when no more come;
	// minding those that look after Raft, and end once stopped is closed.
	serving, minding sync.WaitGroup
	stopped          chan struct{}
}

// Start runs the member whose log is in cfg.Dir. Where there is none, the
// member founds a cluster of itself alone. Everything that the log holds will
// be applied, but not all of it before Start returns: that is what [Node.Ready]
// waits for.
func Start(cfg Config, sm StateMachine) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start member: %w", err)
	}
	cfg = cfg.withDefaults()
	n := &Node{
		cfg:       cfg,
		machine:   newMachine(sm, cfg.SnapshotBytes),
		proposals: make(chan *proposal, maxWaiting),
		flights:   make(chan flight, maxFlights),
		reads:     make(chan *read, maxWaiting),
		leading:   make(chan bool, 16),
		closing:   make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("start member %s: %w", cfg.Name, err)
	}
	var err error
	if n.log, err = openLog(filepath.Join(cfg.Dir, "log.db")); err != nil {
		return nil, fmt.Errorf("start member %s: %w", cfg.Name, err)
	}
	n.machine.agreed = n.log.noteAgreed
	if err := n.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start member %s: %w", cfg.Name, err), n.log.Close())
	}
	return n, nil
}

func (n *Node) start() error {
	conf := n.cfg.raft(n.leading)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, 2, conf.Logger)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	// Raft syncs what is inside its directory, not the directory's own name.
	if err := durable.SyncDir(n.cfg.Dir); err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	if conf.NoSnapshotRestoreOnStart, err = n.replay(snapshots); err != nil {
		return err
	}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(n.cfg.Address))
	if err := n.found(conf, snapshots, transport); err != nil {
		return err
	}
	if n.raft, err = n.newRaft(conf, snapshots, transport); err != nil {
		return err
	}
	if err := n.checkMember(); err != nil {
		return errors.Join(err, n.raft.Shutdown().Error())
	}
	n.serving.Go(n.gather)
	n.serving.Go(n.deliver)
	n.serving.Go(n.verify)
	n.minding.Go(n.lead)
	n.minding.Go(n.compact)
	n.minding.Go(n.settle)
	n.electAlone()
	return nil
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

// found makes a new log that of a cluster with one member. Founding is two
// writes; a log that holds only the first was never anyone's, and is founded
// again.
func (n *Node) found(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) error {
	last, err := n.log.LastIndex()
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil || last > 0 || len(list) > 0 {
		return err
	}
	if n.cfg.Existing {
		return fmt.Errorf("there is no log in %s, though this member had one: it is lost, or the directory is the wrong one", n.cfg.Dir)
	}
	if err := n.log.clear(); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: conf.LocalID, Address: transport.LocalAddr(),
	}}}
	if err := raft.BootstrapCluster(conf, n.log, n.log, snapshots, transport, alone); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}

// newRaft turns the panic by which Raft says that the log does not go on from
// the newest snapshot that it could restore into an error. Nothing runs yet
// when that happens.
func (n *Node) newRaft(conf *raft.Config, snapshots raft.SnapshotStore, transport raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the log in %s does not go on from the newest snapshot that can be read: %v", n.cfg.Dir, p)
		}
	}()
	return raft.NewRaft(conf, n.machine, n.log, n.log, snapshots, transport)
}

func (n *Node) checkMember() error {
	members := n.members()
	for _, m := range members {
		if m.Name == n.cfg.Name {
			return nil
		}
	}
	return fmt.Errorf("the log in %s is another member's: it knows %s", n.cfg.Dir, members)
}

// electAlone spares a member that has no one to wait for the wait: a shorter
// timeout makes Raft look at once whether it has run out.
func (n *Node) electAlone() {
	if len(n.members()) > 1 {
		return
	}
	conf := n.raft.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = n.cfg.Election, n.cfg.Election
	if err := n.raft.ReloadConfig(conf); err != nil {
		// Then it waits after all.
		n.cfg.Logger.Warn("cannot speed up the election", "error", err)
	}
}

// Close ends the member: no call begins any more, those under way end, and
// nothing that the node started is left running.
func (n *Node) Close() error {
	n.mu.Lock()
	select {
	case <-n.closing:
		n.mu.Unlock()
		return nil
	default:
	}
	close(n.closing)
	n.mu.Unlock()
	// Raft still runs, and answers all that it was asked: futures that are open
	// when it stops may stay so for ever.
	n.calls.Wait()
	close(n.proposals)
	close(n.reads)
	n.serving.Wait()
	err := n.raft.Shutdown().Error()
	close(n.stopped)
	n.minding.Wait()
	if err := errors.Join(err, n.log.Close()); err != nil {
		return fmt.Errorf("close member %s: %w", n.cfg.Name, err)
	}
	return nil
}

// begin enters a call; it must end by n.calls.Done.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.closing:
		return false
	default:
		n.calls.Add(1)
		return true
	}
}
