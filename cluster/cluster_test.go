package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestEachCallerGetsHisOwnResult(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			k := fmt.Sprintf("key %d", i)
			result, err := n.Propose(t.Context(), key(k))
			if err != nil {
				t.Error(err)
				return
			}
			sm.mu.Lock()
			defer sm.mu.Unlock()
			if want := fmt.Sprintf("%s is number %d", k, slices.Index(sm.keys, k)+1); result != want {
				t.Errorf("result is %q, want %q", result, want)
			}
		})
	}
	callers.Wait()
	if len(sm.keys) != 100 {
		t.Errorf("%d commands were applied", len(sm.keys))
	}
}

func TestWhatWaitsSharesAnEntry(t *testing.T) {
	const small, large = 10, maxEntry / 3
	tests := map[string]struct {
		waiting []int // sizes of commands
		givenUp []int
		want    [][]int // which of them share an entry
	}{
		"one alone":               {[]int{small}, nil, [][]int{{0}}},
		"all that waits":          {[]int{small, small, small}, nil, [][]int{{0, 1, 2}}},
		"up to the bound":         {[]int{large, small, large, large, small}, nil, [][]int{{0, 1, 2}, {3, 4}}},
		"or one beyond it, alone": {[]int{small, 2 * maxEntry, small}, nil, [][]int{{0}, {1}, {2}}},
		"but what was given up":   {[]int{small, small, small}, []int{0, 2}, [][]int{{1}}},
		"or all was given up":     {[]int{small, small}, []int{0, 1}, [][]int{nil}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := &Node{proposals: make(chan *proposal, len(test.waiting))}
			number := map[*proposal]int{}
			for i, size := range test.waiting {
				command, err := encodeCommand(key(strings.Repeat("x", size)))
				if err != nil {
					t.Fatal(err)
				}
				p := &proposal{command: command}
				p.taken.Store(slices.Contains(test.givenUp, i))
				number[p] = i
				n.proposals <- p
			}
			for held := <-n.proposals; held != nil; {
				var taken []*proposal
				var data []byte
				taken, data, held = n.fill(held)
				var got []int
				for _, p := range taken {
					got = append(got, number[p])
				}
				if len(test.want) == 0 || !slices.Equal(got, test.want[0]) {
					t.Fatalf("an entry holds %v, want %v", got, test.want)
				}
				test.want = test.want[1:]
				entry := new(weirv1.Entry)
				if err := proto.Unmarshal(data, entry); err != nil || len(entry.Commands) != len(taken) {
					t.Fatalf("the entry reads as %d commands, %v", len(entry.Commands), err)
				}
			}
			if len(test.want) > 0 {
				t.Errorf("no more entries, want %v", test.want)
			}
		})
	}
}

func TestCommandLargerThanAnEntryGoesAlone(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	propose(t, n, strings.Repeat("x", 3*maxEntry), "small")
	_, err := n.Propose(t.Context(), key(strings.Repeat("x", MaxCommand)))
	requireError(t, err, ErrTooLarge, ErrUnknown)
	if len(sm.keys) != 2 {
		t.Errorf("%d commands were applied, want 2", len(sm.keys))
	}
}

func TestProposerFillsInWhatMustBeDecidedOnce(t *testing.T) {
	given := key("k")
	data, err := encodeCommand(given)
	if err != nil {
		t.Fatal(err)
	}
	whole := decode(t, data)
	if whole.Id == "" || whole.Time == nil || whole.GetPutValue().GetKey() != "k" {
		t.Errorf("the command became %v", whole)
	}
	if given.Id != "" || given.Time != nil {
		t.Errorf("the caller's command became %v", given)
	}
	whole.Actor = "me"
	data, err = encodeCommand(whole)
	if err != nil {
		t.Fatal(err)
	}
	if again := decode(t, data); again.Id != whole.Id || !again.Time.AsTime().Equal(whole.Time.AsTime()) || again.Actor != "me" {
		t.Errorf("%v became %v", whole, again)
	}
	if _, err := encodeCommand(&weirv1.Command{Id: "x"}); err == nil {
		t.Error("a command without an action was taken")
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	propose(t, n, "a")
	gone := errors.New("the caller is gone")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(gone)

	t.Run("a context that ended before", func(t *testing.T) {
		for range 20 { // whichever way the race goes, it may not lie
			_, err := n.Propose(ended, key("maybe"))
			if err == nil || errors.Is(err, ErrUnknown) {
				continue
			}
			requireError(t, err, gone)
		}
	})
	t.Run("a context that ends while it is under way", func(t *testing.T) {
		sm.mu.Lock()
		sm.hold = make(chan struct{})
		sm.mu.Unlock()
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		before := n.Status().Commit
		go func() {
			_, err := n.Propose(ctx, key("under way"))
			failed <- err
		}()
		for n.Status().Commit == before {
			waitABit(t)
		}
		cancel(gone)
		err := <-failed
		requireError(t, err, ErrUnknown)
		requireError(t, err, gone)
		close(sm.hold)
		if err := n.ReadBarrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		sm.mu.Lock()
		defer sm.mu.Unlock()
		if !slices.Contains(sm.keys, "under way") {
			t.Error("it was not applied after all")
		}
	})
	t.Run("a member that lost its leadership", func(t *testing.T) {
		// Raft has no way to depose a lone leader; the mapping is what counts.
		for raftError, want := range map[error]error{
			raft.ErrNotLeader:                    ErrNotLeader,
			raft.ErrLeadershipTransferInProgress: ErrNotLeader,
			raft.ErrLeadershipLost:               ErrUnknown,
			raft.ErrRaftShutdown:                 ErrUnknown,
			errors.New("no space"):               ErrUnknown,
		} {
			requireError(t, proposeError(raftError), want)
		}
	})
	t.Run("a node that is closed", func(t *testing.T) {
		shut(t, n)
		_, err := n.Propose(t.Context(), key("late"))
		requireError(t, err, ErrClosed, ErrUnknown)
		requireError(t, n.ReadBarrier(t.Context()), ErrClosed)
		requireError(t, n.Ready(t.Context()), ErrClosed)
		requireError(t, n.Snapshot(), ErrClosed)
		shut(t, n)
	})
}

func TestCallsUnderWayEndBeforeTheNode(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	var callers sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for i := range 64 {
		callers.Go(func() {
			for j := 0; ; j++ {
				k := fmt.Sprintf("%d-%d", i, j)
				_, err := n.Propose(t.Context(), key(k))
				if err != nil {
					requireError(t, err, ErrClosed, ErrUnknown)
					return
				}
				mu.Lock()
				acknowledged[k] = true
				mu.Unlock()
				_ = n.ReadBarrier(t.Context())
			}
		})
	}
	for n.Status().Commit < 50 {
		waitABit(t)
	}
	shut(t, n)
	callers.Wait()
	if len(sm.keys) != len(acknowledged) {
		t.Errorf("%d commands were applied, %d acknowledged", len(sm.keys), len(acknowledged))
	}
}

func TestReadBarrierSeesWhatWasAcknowledged(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 25 {
				k := fmt.Sprintf("%d-%d", i, j)
				if _, err := n.Propose(t.Context(), key(k)); err != nil {
					t.Error(err)
					return
				}
				if err := n.ReadBarrier(t.Context()); err != nil {
					t.Error(err)
					return
				}
				sm.mu.Lock()
				if !slices.Contains(sm.keys, k) {
					t.Errorf("%s is not there", k)
				}
				sm.mu.Unlock()
			}
		})
	}
	callers.Wait()
}

func TestReadBarrierWaitsForTheStateMachine(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	sm.mu.Lock()
	sm.hold = make(chan struct{})
	sm.mu.Unlock()
	before := n.Status().Commit
	proposed := make(chan error)
	go func() {
		_, err := n.Propose(t.Context(), key("slow"))
		proposed <- err
	}()
	for n.Status().Commit == before {
		waitABit(t)
	}
	impatient, cancel := context.WithCancel(t.Context())
	read := make(chan error)
	go func() { read <- n.ReadBarrier(impatient) }()
	cancel()
	requireError(t, <-read, context.Canceled)
	go func() { read <- n.ReadBarrier(t.Context()) }()
	close(sm.hold)
	if err := errors.Join(<-read, <-proposed); err != nil {
		t.Fatal(err)
	}
	sm.require(t, "slow")
}

func TestRestartKeepsEverything(t *testing.T) {
	cfg := config(t)
	first := new(ledger)
	n := start(t, cfg, first)
	propose(t, n, "a", "b")
	term := n.Status().Term
	shut(t, n)

	t.Run("for a state machine that lost its state", func(t *testing.T) {
		sm := new(ledger)
		n := start(t, cfg, sm)
		defer shut(t, n)
		sm.require(t, "a", "b")
		if n.Status().Term <= term {
			t.Errorf("the term went from %d to %d", term, n.Status().Term)
		}
	})
	t.Run("for one that kept it", func(t *testing.T) {
		n := start(t, cfg, first)
		defer shut(t, n)
		propose(t, n, "c")
		first.require(t, "a", "b", "c")
	})
}

func TestRestartFromASnapshot(t *testing.T) {
	cfg := config(t)
	first := new(ledger)
	n := start(t, cfg, first)
	propose(t, n, "a", "b")
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	propose(t, n, "c")
	shut(t, n)

	lost := new(ledger)
	n = start(t, cfg, lost)
	lost.require(t, "a", "b", "c")
	if lost.restored != 1 {
		t.Errorf("a state machine without its state was restored %d times", lost.restored)
	}
	propose(t, n, "d")
	shut(t, n)

	first.mu.Lock()
	first.keys, first.applied = lost.keys, lost.applied
	first.mu.Unlock()
	start(t, cfg, first)
	first.require(t, "a", "b", "c", "d")
	if first.restored != 0 {
		t.Error("a state machine that has its state was restored")
	}
}

func TestLogIsCompactedByItsBytes(t *testing.T) {
	cfg := config(t)
	cfg.SnapshotBytes = 64 << 10
	sm := new(ledger)
	n := start(t, cfg, sm)
	for n.raft.Stats()["last_snapshot_index"] == "0" {
		propose(t, n, strings.Repeat("x", 4<<10))
	}
	propose(t, n, "last")
	shut(t, n)
	again := new(ledger)
	start(t, cfg, again)
	again.require(t, sm.keys...)
	if again.restored != 1 {
		t.Errorf("it was restored %d times", again.restored)
	}
}

func TestStatus(t *testing.T) {
	cfg := config(t)
	cfg.Address = "10.0.0.1:7400"
	sm := new(ledger)
	n := start(t, cfg, sm)
	propose(t, n, "a")
	got := n.Status()
	if got.Name != "one" || got.Leader != "one" || got.Term == 0 || got.Commit != got.Applied || got.Applied != sm.Applied() {
		t.Errorf("status is %+v", got)
	}
	if want := []Member{{Name: "one", Role: Voter, Address: "10.0.0.1:7400"}}; !slices.Equal(got.Members, want) {
		t.Errorf("members are %v, want %v", got.Members, want)
	}
}

func TestFoundingThatWasInterrupted(t *testing.T) {
	cfg := config(t)
	l, err := openLog(filepath.Join(cfg.Dir, "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 1), l.Close()); err != nil {
		t.Fatal(err)
	}
	sm := new(ledger)
	propose(t, start(t, cfg, sm), "a")
	sm.require(t, "a")
}

func TestStartRefuses(t *testing.T) {
	// used is a member with a log, closed, and its state.
	used := func(t *testing.T) (Config, *ledger) {
		cfg, sm := config(t), new(ledger)
		n := start(t, cfg, sm)
		propose(t, n, "a", "b")
		shut(t, n)
		return cfg, sm
	}
	t.Run("settings that make no sense", func(t *testing.T) {
		for want, cfg := range map[string]Config{
			"needs a name":      {Dir: "x"},
			"needs a directory": {Name: "x"},
			"too short":         {Name: "x", Dir: "x", Election: 1},
			"cannot be bounded": {Name: "x", Dir: "x", SnapshotBytes: -1},
		} {
			requireStartError(t, cfg, new(ledger), want)
		}
	})
	t.Run("another member's log", func(t *testing.T) {
		cfg, sm := used(t)
		cfg.Name = "two"
		requireStartError(t, cfg, sm, "is another member's: it knows [{one VOTER one}]")
	})
	t.Run("a second process", func(t *testing.T) {
		cfg := config(t)
		start(t, cfg, new(ledger))
		requireStartError(t, cfg, new(ledger), "another process uses it")
	})
	t.Run("a log that is older than the state", func(t *testing.T) {
		cfg, sm := used(t)
		cfg.Dir = t.TempDir()
		requireStartError(t, cfg, sm, "a part of it is lost")
		requireStartError(t, cfg, sm, "a part of it is lost") // and does not found a new one
	})
	t.Run("a log that is gone", func(t *testing.T) {
		cfg := config(t)
		cfg.Existing = true
		requireStartError(t, cfg, new(ledger), "though this member had one")
		requireStartError(t, cfg, new(ledger), "though this member had one") // the first try left none
	})
	t.Run("a log that was damaged", func(t *testing.T) {
		for _, bucket := range [][]byte{bucketLog, bucketStable} {
			cfg, sm := used(t)
			damage(t, filepath.Join(cfg.Dir, "log.db"), bucket)
			requireStartError(t, cfg, sm, "its checksum does not hold")
		}
	})
	t.Run("snapshots that were damaged", func(t *testing.T) {
		cfg, sm := config(t), new(ledger)
		n := start(t, cfg, sm)
		propose(t, n, "a", "b")
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
		shut(t, n)
		files, _ := filepath.Glob(filepath.Join(cfg.Dir, "snapshots", "*", "state.bin"))
		if len(files) != 1 {
			t.Fatalf("snapshots are %v", files)
		}
		if err := os.WriteFile(files[0], []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		requireStartError(t, cfg, new(ledger), "failed to load any existing snapshots")
	})
	t.Run("a gap between the snapshot and the log", func(t *testing.T) {
		cfg, _ := used(t)
		l, err := openLog(filepath.Join(cfg.Dir, "log.db"))
		if err != nil {
			t.Fatal(err)
		}
		// The configuration moves, so that it is still this member's log.
		var configuration raft.Log
		err = l.GetLog(1, &configuration)
		configuration.Index = 2
		if err := errors.Join(err, l.DeleteRange(1, 2), l.StoreLog(&configuration), l.Close()); err != nil {
			t.Fatal(err)
		}
		requireStartError(t, cfg, new(ledger), "does not go on from the newest snapshot")
	})
}

// damage flips a bit in the last record of a bucket.
func damage(t *testing.T, path string, bucket []byte) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		key, value := tx.Bucket(bucket).Cursor().Last()
		value = slices.Clone(value)
		value[len(value)-1] ^= 4
		return tx.Bucket(bucket).Put(key, value)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, data []byte) *weirv1.Command {
	t.Helper()
	c := new(weirv1.Command)
	if err := proto.Unmarshal(data, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// waitABit yields to what the test waits for.
func waitABit(t testing.TB) {
	if t.Context().Err() != nil {
		t.Fatal("the test has ended")
	}
	time.Sleep(time.Millisecond)
}
