// Package cluster is the log: an order of commands that members agree on and
// that nothing can take back. It knows nothing of what a command does; that is
// for the [StateMachine] that it feeds.
//
//	Propose ─▶ gather ─▶ entry ─▶ raft ─▶ log (synced)    ─▶ commit ─▶ Apply
//	   ▲                                                                 │
//	   └──────────────────────── each its own result ◀───────────────────┘
//
// A [Node] is this process's member. [Node.Propose] returns once the command
// was applied here; [Node.ReadBarrier] returns once everything that was
// acknowledged anywhere before the call can be read here. Any member takes any
// call: it asks the leader, over a [Network] that others provide.
//
// # Promise
//
// A result means that the command is on the disks of a quorum and was applied
// at a place in the order that it keeps for ever. An error says what happened.
// [ErrUnknown]: it may have been done, or still be; a state machine that
// remembers command ids makes it safe to propose it again. Any other: it was not
// done, and never will be.
//
// # Members
//
// Raft knows members by name. Where they are is in a roster that every member
// keeps and all tell each other (package roster), so that addresses may change,
// even all at once. A member comes in by [Node.Join], as a non-voter, and votes
// once it has caught up. One that does not answer for long is removed, unless too
// few would be left, and comes back in by itself; one that an operator removed
// does not, if Config.Admit says so.
//
// # Reads
//
// A read is confirmed by a quorum that has taken an append of this leader which
// began after the read did (see contacts): no clock is trusted, and no answer
// that was under way before.
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
// An entry is synced before it counts. Log, term and vote are kept by package
// wal: Start reads all of them and refuses a log that was damaged, rather than to
// apply it. Snapshots lie beside it. What is known to be agreed on is applied by
// Start itself, whether or not there is a leader to say so. Which of them the state machine needs follows from its own
// Applied: one that lost its state gets the newest snapshot and what follows,
// one that has it gets only what it has not seen.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/cluster/roster"
)

// What an error of Propose, ReadBarrier and the other calls may be. All but
// ErrUnknown say that nothing was done.
var (
	// ErrNotLeader: another member leads, or none. Calls that go to the leader
	// wait for one; it then stands beside the reason why they waited no longer.
	ErrNotLeader = errors.New("this member is not the leader")
	// ErrClosed: the node is closing.
	ErrClosed = errors.New("node is closed")
	// ErrTooLarge: the command has more than MaxCommand bytes.
	ErrTooLarge = errors.New("command is too large")
	// ErrTooNew: not every member understands such a command.
	ErrTooNew = errors.New("command is of a kind that not all members understand")
	// ErrNoSpace: the disk of the member that must write is full.
	ErrNoSpace = errors.New("the disk is full")
	// ErrRemoved: this member was taken out of the cluster, and is not let in
	// again.
	ErrRemoved = errors.New("this member was removed from the cluster")
	// ErrRefused: the cluster does not do that, and says why.
	ErrRefused = errors.New("refused")
	// ErrUnknown: it may have been done, or still be.
	ErrUnknown = errors.New("outcome is unknown")
)

// Node is one running member.
type Node struct {
	cfg       Config
	log       *logStore
	raft      *raft.Raft
	machine   *machine
	snapshots *snapshots
	// unrestored is why the newest snapshot could not be restored at the start.
	unrestored error

	roster     *roster.Roster
	contacts   *contacts
	leadership *leadership
	standing   standing
	streams    *streams
	transport  *transport // nil: alone
	clients    clients

	// blank: it has no log, and has not been let in yet. Whoever takes it for a
	// member speaks of an earlier one of its name, whose votes and entries it does
	// not know; it takes no part in Raft before the leader knows that too.
	blank atomic.Bool

	proposals chan *proposal
	flights   chan flight
	forwards  chan struct{}
	reads     chan *read
	leading   chan bool
	ledSince  atomic.Int64
	ledTerm   atomic.Uint64 // the term that ledSince is of
	elections atomic.Uint64

	// changing holds one while the members are being changed.
	changing chan struct{}

	// handing: the leadership is being handed over, and no entry takes off.
	// Airborne are those on their way, landed tells of each that ends.
	handing  atomic.Bool
	airborne atomic.Int64
	landed   chan struct{}
	// arrived tells gather that an entry or a batch is no longer under way.
	arrived chan struct{}
	// awaitedAfar: an entry was agreed on that other members wait for, and none has
	// followed it.
	awaitedAfar atomic.Bool

	// calls counts the calls under way, of this process and of other members;
	// none begins once closing is closed, and when hurry ends they do not wait
	// any more for what may come later.
	mu       sync.Mutex
	calls    sync.WaitGroup
	closing  chan struct{}
	hurry    context.Context
	endHurry context.CancelFunc
	// serving are the goroutines that answer calls, and end when no more come;
	// minding those that look after Raft and the streams, and end once stopped
	// is closed and life has ended.
	serving, minding sync.WaitGroup
	stopped          chan struct{}
	life             context.Context
	end              context.CancelFunc
}

func newNode(cfg Config, sm StateMachine) *Node {
	n := &Node{
		cfg:       cfg,
		machine:   newMachine(sm, cfg.SnapshotBytes),
		contacts:  newContacts(),
		standing:  standing{times: map[string]time.Time{}},
		clients:   clients{open: map[string]*dialing{}},
		proposals: make(chan *proposal, maxWaiting),
		flights:   make(chan flight, maxFlights),
		forwards:  make(chan struct{}, maxForwards),
		reads:     make(chan *read, maxWaiting),
		leading:   make(chan bool, 16),
		landed:    make(chan struct{}, 1),
		arrived:   make(chan struct{}, 1),
		changing:  make(chan struct{}, 1),
		closing:   make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	n.life, n.end = context.WithCancel(context.Background())
	n.hurry, n.endHurry = context.WithCancel(context.Background())
	n.leadership = newLeadership(n.life)
	n.streams = newStreams(n)
	return n
}

// The files of a member in its directory; Raft's snapshots are beside them.
const (
	logDir     = "log"
	rosterFile = "roster"
)

// Start runs the member whose log is in cfg.Dir. Where there is none, the
// member founds the cluster that cfg.Found says; one that is alone, without a
// network, founds one of itself; else it waits until it is let in. Everything
// that the log holds will be applied, but not all of it before Start returns:
// that is what [Node.Ready] waits for.
func Start(cfg Config, sm StateMachine) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start member: %w", err)
	}
	n := newNode(cfg.withDefaults(), sm)
	if err := n.open(); err != nil {
		n.end()
		n.endHurry()
		return nil, fmt.Errorf("start member %s: %w", cfg.Name, err)
	}
	if err := n.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start member %s: %w", cfg.Name, err), n.stop())
	}
	return n, nil
}

// Close ends the member: no call begins any more, a leader hands over, the calls
// under way end, and nothing that the node started is left running.
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
	// What only waits to be applied here does not wait for ever.
	impatience := time.AfterFunc(2*n.cfg.Election, n.endHurry)
	defer impatience.Stop()
	// The others need not wait for the calls of this one to end.
	n.farewell()
	// Raft still runs, and answers all that it was asked: futures that are open
	// when it stops may stay so for ever.
	n.calls.Wait()
	close(n.proposals)
	close(n.reads)
	n.serving.Wait()
	if err := n.stop(); err != nil {
		return fmt.Errorf("close member %s: %w", n.cfg.Name, err)
	}
	return nil
}

// stop ends what runs, and waits for it. Once the streams are closed nothing
// that Raft decides can get out.
func (n *Node) stop() error {
	n.shutClients()
	n.end()
	close(n.log.mute)
	var err error
	if n.raft != nil {
		err = n.raft.Shutdown().Error()
	}
	if n.transport != nil {
		err = errors.Join(err, n.transport.Close())
	}
	close(n.stopped)
	n.minding.Wait()
	n.endHurry()
	return errors.Join(err, n.log.Close())
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

// whileOpen is a context that also ends soon after the node begins to close.
func (n *Node) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.hurry, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}
