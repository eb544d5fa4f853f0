package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

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
				taken, held = n.fill(held)
				data := entryOf(taken)
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

func TestCloseWaitsForCallersThatHaveNotEvenEntered(t *testing.T) {
	sm := new(ledger)
	n := start(t, config(t), sm)
	sm.mu.Lock()
	sm.hold = make(chan struct{})
	sm.mu.Unlock()
	// Large ones, so that the queue fills up behind the few entries under way.
	large := key(strings.Repeat("x", maxEntry))
	const callers = maxWaiting + 200
	var running sync.WaitGroup
	for i := range callers {
		running.Go(func() {
			c := large
			if i >= 20 {
				c = key(fmt.Sprint(i))
			}
			if _, err := n.Propose(t.Context(), c); err != nil {
				requireError(t, err, ErrClosed, ErrUnknown)
			}
		})
		if i == 20 {
			for len(n.proposals) < 10 {
				waitABit(t)
			}
		}
	}
	for len(n.proposals) < maxWaiting {
		waitABit(t)
	}
	closed := make(chan error)
	go func() { closed <- n.Close() }()
	for n.begin() {
		n.calls.Done()
		waitABit(t)
	}
	close(sm.hold)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	running.Wait()
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

func TestStatus(t *testing.T) {
	cfg := config(t)
	cfg.Dir = filepath.Join(cfg.Dir, "made", "on", "the", "way")
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
