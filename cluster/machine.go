package cluster

import (
	"errors"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// StateMachine is fed by the log. Apply, Snapshot and Restore are called one
// at a time; the write function of a snapshot runs beside them.
type StateMachine interface {
	// Apply does entries in order and returns a result for each command of
	// each. It skips what it did before, and takes an empty entry as done. One
	// that gives up, as its disk is full and it is to stop, is left behind: Applied
	// tells so, and the results are errors.
	Apply(indexes []uint64, entries [][]byte) [][]any
	// Applied is the index of the last entry that it holds.
	Applied() uint64
	// Snapshot takes the state as it is now, quickly; write streams it.
	Snapshot() (write func(io.Writer) error, release func(), err error)
	// Restore replaces the state, or refuses and leaves it.
	Restore(io.Reader) error
}

// Fuller is a state machine whose disk may be full: Apply waits for space then, and
// Full tells so.
type Fuller interface {
	Full() bool
}

// isFull tells whether the state machine waits for space.
func (m *machine) isFull() bool {
	f, ok := m.StateMachine.(Fuller)
	return ok && f.Full()
}

// machine is the state machine as Raft sees it. It adds what Raft does not
// tell: how far the state machine really is, for Raft's own applied index runs
// ahead of it.
type machine struct {
	StateMachine
	progress
	// agreed is told how far the log is known to be agreed on; nil: nobody is.
	agreed  func(index uint64)
	awaited *awaited

	// turn is whose it is: a backup takes its snapshot between the calls of Raft.
	turn sync.Mutex

	// bytes were applied since the last snapshot, or since full was told that
	// they were too many: it is told once.
	bytes, bound int64
	full         chan struct{}
	// snapshotSize is that of the last snapshot, in bytes.
	snapshotSize func() int64
}

func newMachine(sm StateMachine, bound int64) *machine {
	m := &machine{StateMachine: sm, awaited: newAwaited(), bound: bound, full: make(chan struct{}, 1), snapshotSize: func() int64 { return 0 }}
	m.progress.changed = make(chan struct{})
	m.progress.advance(sm.Applied(), 0)
	return m
}

// leastLog is the part of the bound that may always gather, however small the
// state is.
const leastLog = 8

// tooMuch is how many bytes may be applied before a snapshot is wanted: as many as
// the last one has. Whoever starts without his state then replays hardly more than
// he restores, and snapshots write no more than the log does.
func (m *machine) tooMuch() int64 {
	return min(max(m.snapshotSize(), m.bound/leastLog), m.bound)
}

// Apply is there for Raft's interface; Raft calls ApplyBatch.
func (m *machine) Apply(l *raft.Log) any {
	return m.ApplyBatch([]*raft.Log{l})[0]
}

func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	indexes, entries := make([]uint64, len(logs)), make([][]byte, len(logs))
	for i, l := range logs {
		indexes[i] = l.Index
		if l.Type == raft.LogCommand {
			entries[i] = l.Data
		}
		m.bytes += int64(len(l.Data))
	}
	results := make([]any, len(logs))
	m.turn.Lock()
	had := m.Applied()
	for i, result := range m.StateMachine.Apply(indexes, entries) {
		results[i] = result
		if indexes[i] > had { // else it was skipped, and there is no result
			m.awaited.applied(indexes[i], entries[i], result)
		}
	}
	has := m.Applied()
	m.turn.Unlock()
	last := logs[len(logs)-1]
	if has >= last.Index { // else nobody is to read here what is not here
		m.progress.advance(last.Index, last.Term)
	}
	if m.agreed != nil {
		m.agreed(last.Index)
	}
	if m.bytes > m.tooMuch() {
		m.bytes = 0
		select {
		case m.full <- struct{}{}:
		default:
		}
	}
	return results
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.turn.Lock()
	// After a start Raft goes through what the state machine has already. It would
	// give the state the index of where it is itself, and who takes that over and
	// dies had a state that is ahead of his log.
	if index, _, _ := m.progress.now(); m.Applied() > index {
		m.turn.Unlock()
		m.bytes = m.bound
		return nil, raft.ErrNothingNewToSnapshot
	}
	write, release, err := m.StateMachine.Snapshot()
	m.turn.Unlock()
	if err != nil {
		return nil, err
	}
	m.bytes = 0
	return &snapshot{write: write, release: release}, nil
}

func (m *machine) Restore(r io.ReadCloser) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if err := m.StateMachine.Restore(r); err != nil {
		return err
	}
	m.bytes = 0
	m.progress.advance(m.Applied(), 0)
	return nil
}

type snapshot struct {
	write   func(io.Writer) error
	release func()
}

func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s *snapshot) Release() { s.release() }

// progress is how far the state machine is: the last index and its term. The
// term says more than it seems. Raft's first entry of a term and its barriers
// never come here, so a leader whose machine has seen its term has committed
// something in it, which is what makes his reads safe.
type progress struct {
	mu          sync.Mutex
	index, term uint64
	changed     chan struct{}
}

func (p *progress) advance(index, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index, p.term = index, term
	p.wake()
}

// nudge makes all who wait look again.
func (p *progress) nudge() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
}

func (p *progress) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// now returns the progress, and what closes when it is no longer that.
func (p *progress) now() (index, term uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index, p.term, p.changed
}
