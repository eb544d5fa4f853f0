package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
)

// A member applies by itself what it knows to be agreed on, with no leader to
// tell it: Start alone brings it there.
func TestStartAppliesWhatIsAgreedOn(t *testing.T) {
	cfg := config(t)
	first := new(ledger)
	n := start(t, cfg, first)
	var want []string
	for i := range 3 * replayBatch {
		want = append(want, fmt.Sprint("key ", i))
	}
	propose(t, n, want...)
	if err := n.log.Settle(); err != nil {
		t.Fatal(err)
	}
	shut(t, n)

	for i, name := range []string{"from the log", "from a snapshot and the log"} {
		snapshot := i == 1
		t.Run(name, func(t *testing.T) {
			if snapshot {
				n := start(t, cfg, new(ledger))
				if err := n.Snapshot(); err != nil {
					t.Fatal(err)
				}
				propose(t, n, "last")
				if err := n.log.Settle(); err != nil {
					t.Fatal(err)
				}
				shut(t, n)
				want = append(want, "last")
			}
			sm := new(ledger)
			requireReplayed(t, cfg, sm)
			sm.require(t, want...)
		})
	}
}

// requireReplayed starts no Raft: what is applied, replay has applied.
func requireReplayed(t *testing.T, cfg Config, sm StateMachine) {
	t.Helper()
	log, err := openLog(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n := &Node{cfg: cfg, log: log, machine: newMachine(sm, 1<<20)}
	conf := cfg.withDefaults().raft(nil)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, conf.Logger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.replay(snapshots); err != nil {
		t.Fatal(err)
	}
}

// A member has taken over a snapshot, and died before Raft dropped the log that
// it ends. A snapshot that came of a backup holds a state of long ago.
func diedBeforeTheLogWasDropped(t *testing.T) Config {
	t.Helper()
	cfg := quiet(config(t))
	n := start(t, cfg, new(ledger))
	propose(t, n, "a", "b", "c")
	shut(t, n)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, newLogger(cfg.withDefaults().Logger))
	if err != nil {
		t.Fatal(err)
	}
	index := n.raft.LastIndex() + 5
	_, nowhere := raft.NewInmemTransport("one")
	sink, err := snapshots.Create(raft.SnapshotVersionMax, index, n.raft.CurrentTerm(), configuration([]Member{{Name: "one"}}), 1, nowhere)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(sink).Encode(ledgerState{Keys: []string{"old"}, Applied: 2}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// It had entries that nobody else has, which reach beyond the snapshot.
func TestStartDropsALogThatTheSnapshotDoesNotAgreeWith(t *testing.T) {
	cfg := diedBeforeTheLogWasDropped(t)
	log, err := openLog(cfg.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	last, err := log.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for index := last + 1; index < last+20; index++ {
		if err := log.StoreLog(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: []byte("nobody has agreed")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	sm := new(ledger)
	n := start(t, cfg, sm)
	propose(t, n, "new")
	sm.require(t, "old", "new")
}

func TestStartAppliesNothingThatABackupHasEnded(t *testing.T) {
	cfg := diedBeforeTheLogWasDropped(t)
	sm := new(ledger)
	requireReplayed(t, cfg, sm)
	sm.require(t, "old")
}

func TestLogGoesOnFromASnapshotThatIsAheadOfIt(t *testing.T) {
	cfg := diedBeforeTheLogWasDropped(t)
	for i, sm := range []*ledger{new(ledger), new(ledger)} {
		n, err := Start(cfg, sm)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err = n.Propose(ctx, key(fmt.Sprint("new ", i)))
		cancel()
		shut(t, n)
		if err != nil {
			t.Fatal(err)
		}
		sm.require(t, []string{"old", "new 0", "new 1"}[:i+2]...)
	}
}

// What Raft goes through again is skipped: it has no results, and the state is
// not that of the index where Raft is.
func TestWhatWasReplayedIsNotTakenForNew(t *testing.T) {
	sm := &ledger{applied: 7}
	m := newMachine(sm, 1<<20)
	command, err := encodeCommand(key("x"))
	if err != nil {
		t.Fatal(err)
	}
	id := commandID(command)
	m.awaited.add(id)
	log := &raft.Log{Type: raft.LogCommand, Data: protowire.AppendBytes(protowire.AppendTag(nil, entryCommands, protowire.BytesType), command)}
	for log.Index = 5; log.Index < 9; log.Index++ {
		m.ApplyBatch([]*raft.Log{log})
		_, found := m.awaited.any(id)
		snapshot, err := m.Snapshot()
		if skipped := log.Index < 7; skipped != errors.Is(err, raft.ErrNothingNewToSnapshot) || skipped != (snapshot == nil) {
			t.Errorf("a snapshot at %d: %v", log.Index, err)
		}
		if is := log.Index > 7; found != is {
			t.Errorf("a result of %d: %v", log.Index, found)
		}
	}
}

// A member that ends in the midst of a snapshot has no error to tell of.
func TestEndOfTheMemberIsNoError(t *testing.T) {
	var told bytes.Buffer
	l := newLogger(slog.New(slog.NewTextHandler(&told, nil)))
	l.Error("failed to take snapshot", "error", raft.ErrRaftShutdown)
	l.Error("failed to take snapshot", "error", fmt.Errorf("failed to start snapshot: %v", raft.ErrRaftShutdown))
	if told.Len() > 0 {
		t.Errorf("it tells %s", told.String())
	}
	l.Error("failed to take snapshot", "error", errors.New("x"))
	if told.Len() == 0 {
		t.Error("a true error is not told")
	}
}
