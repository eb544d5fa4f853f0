package cluster

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
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
