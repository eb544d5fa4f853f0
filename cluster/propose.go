package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	// maxEntry is where an entry of several commands stops growing.
	maxEntry = 512 << 10
	// MaxCommand is the size of the largest command; it gets an entry of its
	// own. Chunks are the way for what is larger.
	MaxCommand = 16 << 20

	// maxWaiting bounds the calls that wait to be gathered; more wait to wait.
	maxWaiting = 4096
	// maxFlights bounds the entries whose end is awaited. While they are, what
	// comes gathers: few make large entries, many keep the disk busy.
	maxFlights = 2
	// maxForwards bounds the batches that are under way to the leader.
	maxForwards = 4
	// gathering is how long what comes waits for one that is under way to land, so
	// that it grows: what it costs is the entry's, hardly the command's. Where
	// nothing is under way nothing waits. And it is how long an entry that other
	// members wait for has none that follows, before an empty one does (see first).
	gathering = 2 * time.Millisecond
)

// proposal is a command on its way. It is taken once: by gather, which puts it
// into an entry or a batch, or by its caller, who gives it up before that.
type proposal struct {
	command []byte
	id      string
	kind    uint32
	// far: it came from another member, and goes no further.
	far   bool
	ctx   context.Context
	taken atomic.Bool
	done  chan outcome
}

// outcome is what became of a command: the result and where it stands, or why
// there is none.
type outcome struct {
	result any
	index  uint64
	place  int
	err    error
}

// flight is an entry on its way.
type flight struct {
	future    raft.ApplyFuture
	proposals []*proposal
}

// Propose puts a command into the log, by way of the leader, and returns the
// state machine's result once it was applied here. A command without an id or a
// time gets one. As long as there is no leader that takes it, it waits. When
// the context ends first the error says whether the command is still under way:
// it is ErrUnknown then, else it was not done.
func (n *Node) Propose(ctx context.Context, c *weirv1.Command) (any, error) {
	result, err := n.propose(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("propose command: %w", err)
	}
	return result, nil
}

func (n *Node) propose(ctx context.Context, c *weirv1.Command) (any, error) {
	if !n.begin() {
		return nil, ErrClosed
	}
	defer n.calls.Done()
	data, err := encodeCommand(c)
	if err != nil {
		return nil, err
	}
	for {
		if n.isFull() {
			return nil, ErrNoSpace
		}
		_, period := n.leadership.now()
		out := n.submit(newProposal(ctx, data))
		// A leader without space steps down: the next one may have some.
		far := errors.Is(out.err, ErrNoSpace) && !n.isFull()
		if !errors.Is(out.err, ErrNotLeader) && !far {
			return out.result, out.err
		}
		if err := n.waitForLeader(ctx, period); err != nil {
			return nil, err
		}
	}
}

func newProposal(ctx context.Context, command []byte) *proposal {
	return &proposal{command: command, id: commandID(command), kind: commandKind(command), ctx: ctx, done: make(chan outcome, 1)}
}

// submit has a proposal gathered and waits for what becomes of it.
func (n *Node) submit(p *proposal) outcome {
	select {
	case n.proposals <- p:
	case <-p.ctx.Done():
		return outcome{err: context.Cause(p.ctx)}
	}
	return p.wait()
}

// wait waits for what becomes of a proposal that waits to be gathered.
func (p *proposal) wait() outcome {
	select {
	case out := <-p.done:
		return out
	case <-p.ctx.Done():
	}
	if p.taken.CompareAndSwap(false, true) {
		return outcome{err: context.Cause(p.ctx)}
	}
	return outcome{err: fmt.Errorf("%w: %w", ErrUnknown, context.Cause(p.ctx))}
}

// waitForLeader waits until another leads than in the period, or for a moment:
// the same one may take what it did not take before. Who was removed for good
// waits for nothing.
func (n *Node) waitForLeader(ctx, period context.Context) error {
	if why := n.Outcast(); why != "" {
		return fmt.Errorf("%w: %s", ErrRemoved, why)
	}
	moment := time.NewTimer(n.cfg.Election / 6)
	defer moment.Stop()
	select {
	case <-period.Done():
	case <-moment.C:
	case <-n.closing:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotLeader, context.Cause(ctx))
	}
	return nil
}

// encodeCommand makes the bytes that will be in the log.
func encodeCommand(c *weirv1.Command) ([]byte, error) {
	whole := &weirv1.Command{Id: c.GetId(), Time: c.GetTime(), Actor: c.GetActor(), Action: c.GetAction()}
	if whole.Action == nil {
		return nil, errors.New("it has no action")
	}
	if whole.Id == "" {
		whole.Id = rand.Text()
	}
	if whole.Time == nil {
		whole.Time = timestamppb.Now()
	}
	data, err := proto.Marshal(whole)
	if err == nil && len(data) > MaxCommand {
		err = fmt.Errorf("%w: %d bytes, the most is %d", ErrTooLarge, len(data), MaxCommand)
	}
	return data, err
}

// gather makes entries of what waits and hands them to Raft, or batches that go
// to the leader.
func (n *Node) gather() {
	defer close(n.flights)
	patience := time.NewTimer(gathering)
	defer patience.Stop()
	var held *proposal // did not fit into the entry before
	for {
		first := held
		if held = nil; first == nil {
			if first = n.first(patience); first == nil {
				return
			}
			n.linger(patience)
		}
		var f flight
		f.proposals, held = n.fill(first)
		switch {
		case len(f.proposals) == 0:
		case n.leads():
			n.dispatch(f)
		default:
			n.forward(f.proposals)
		}
	}
}

// first waits for a proposal; nil: no more come. A follower learns from the next
// entry that one is agreed on, and whoever wrote by way of it is answered when it
// is applied there. Where nothing follows, Raft tells the follower after 50 to
// 100 ms; an empty entry does so at once.
func (n *Node) first(patience *time.Timer) *proposal {
	for {
		var idle <-chan time.Time
		if n.awaitedAfar.Load() {
			patience.Reset(gathering)
			idle = patience.C
		}
		select {
		case p := <-n.proposals:
			return p // nil once the channel is closed
		case <-n.arrived:
		case <-idle:
			if n.awaitedAfar.Load() && n.leads() {
				n.dispatch(flight{})
			}
			n.awaitedAfar.Store(false)
		}
	}
}

// linger waits a little for what is under way to end: more comes meanwhile.
func (n *Node) linger(patience *time.Timer) {
	patience.Reset(gathering)
	for n.airborne.Load() > 0 || len(n.forwards) > 0 {
		select {
		case <-n.arrived:
		case <-patience.C:
			return
		}
	}
}

// dispatch hands an entry to Raft, unless the leadership is being handed over.
func (n *Node) dispatch(f flight) {
	n.airborne.Add(1)
	if n.handing.Load() {
		n.land()
		refuse(f.proposals, ErrNotLeader)
		return
	}
	n.awaitedAfar.Store(false)
	f.future = n.raft.Apply(entryOf(f.proposals), 0)
	n.flights <- f
}

// land ends a flight, and tells who waits for the last one.
func (n *Node) land() {
	n.airborne.Add(-1)
	notify(n.landed)
	notify(n.arrived)
}

// notify tells the one who waits, now or next.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func refuse(proposals []*proposal, err error) {
	for _, p := range proposals {
		p.done <- outcome{err: err}
	}
}

// fill puts a proposal and those that wait behind it into an entry. The one
// that no longer fits is held for the next.
func (n *Node) fill(p *proposal) (taken []*proposal, held *proposal) {
	size := 0
	for {
		if len(taken) > 0 && size+len(p.command) > maxEntry || len(taken) == maxWaiting {
			return taken, p
		}
		if p.taken.CompareAndSwap(false, true) && n.understood(p) {
			taken = append(taken, p)
			size += commandSize(p.command)
		}
		select {
		case next, more := <-n.proposals:
			if !more {
				return taken, nil
			}
			p = next
		default:
			return taken, nil
		}
	}
}

// entryCommands is the number of Entry.commands.
const entryCommands = 1

// entryOf makes a weirv1.Entry, which is its commands, one after the other.
func entryOf(proposals []*proposal) []byte {
	size := 0
	for _, p := range proposals {
		size += commandSize(p.command)
	}
	entry := make([]byte, 0, size)
	for _, p := range proposals {
		entry = protowire.AppendTag(entry, entryCommands, protowire.BytesType)
		entry = protowire.AppendBytes(entry, p.command)
	}
	return entry
}

// commandSize is what a command takes of an entry.
func commandSize(command []byte) int {
	return protowire.SizeTag(entryCommands) + protowire.SizeBytes(len(command))
}

// deliver gives each caller what became of his command.
func (n *Node) deliver() {
	for f := range n.flights {
		err := proposeError(f.future.Error())
		if err == nil && slices.ContainsFunc(f.proposals, func(p *proposal) bool { return p.far }) {
			n.awaitedAfar.Store(true)
		}
		n.land()
		var results []any
		if err == nil {
			results, _ = f.future.Response().([]any)
			if len(results) != len(f.proposals) {
				err = fmt.Errorf("%w: %d results for %d commands", ErrUnknown, len(results), len(f.proposals))
			}
		}
		for i, p := range f.proposals {
			if err != nil {
				p.done <- outcome{err: err}
			} else {
				p.done <- outcome{result: results[i], index: f.future.Index(), place: i}
			}
		}
	}
}

// proposeError sorts Raft's errors. One that it does not know, such as the
// disk's, leaves everything open.
func proposeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, ErrNoSpace):
		return ErrNoSpace
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}
