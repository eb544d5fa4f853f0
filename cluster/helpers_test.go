package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a state machine that keeps the order in which it was given keys.
type ledger struct {
	mu       sync.Mutex
	keys     []string
	applied  uint64
	restored int

	// hold, unless nil, is waited for before each Apply.
	hold chan struct{}
}

func (l *ledger) Apply(indexes []uint64, entries [][]byte) [][]any {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	if hold != nil {
		<-hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	results := make([][]any, len(entries))
	for i, data := range entries {
		entry := new(weirv1.Entry)
		if err := proto.Unmarshal(data, entry); err != nil {
			panic(err)
		}
		results[i] = make([]any, len(entry.Commands))
		if indexes[i] <= l.applied {
			continue
		}
		l.applied = indexes[i]
		for j, c := range entry.Commands {
			l.keys = append(l.keys, c.GetPutValue().GetKey())
			results[i][j] = fmt.Sprintf("%s is number %d", c.GetPutValue().GetKey(), len(l.keys))
		}
	}
	return results
}

func (l *ledger) Applied() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applied
}

type ledgerState struct {
	Keys    []string
	Applied uint64
}

func (l *ledger) Snapshot() (func(io.Writer) error, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := ledgerState{Keys: slices.Clone(l.keys), Applied: l.applied}
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(state) }, func() {}, nil
}

func (l *ledger) Restore(r io.Reader) error {
	var state ledgerState
	if err := json.NewDecoder(r).Decode(&state); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys, l.applied = state.Keys, state.Applied
	l.restored++
	return nil
}

func (l *ledger) require(t testing.TB, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.keys, want) {
		t.Fatalf("the state machine holds %v, want %v", l.keys, want)
	}
}

// start runs a member until the test ends.
func start(t testing.TB, cfg Config, sm StateMachine) *Node {
	t.Helper()
	n, err := Start(cfg, sm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, n) })
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func shut(t testing.TB, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func config(t testing.TB) Config {
	return Config{Name: "one", Dir: fastDir(t), Logger: slog.New(failing{t: t})}
}

// failing is a log that must stay without warnings.
type failing struct {
	slog.Handler
	t testing.TB
}

func (f failing) Enabled(context.Context, slog.Level) bool { return true }
func (f failing) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f failing) Handle(_ context.Context, r slog.Record) error {
	// A disk that is slow to take the vote is no fault of the test.
	if r.Level >= slog.LevelWarn && !strings.Contains(r.Message, "Election timeout reached") {
		var b bytes.Buffer
		_ = slog.NewTextHandler(&b, nil).Handle(context.Background(), r)
		f.t.Errorf("logged: %s", b.String())
	}
	return nil
}

func quiet(cfg Config) Config {
	cfg.Logger = nil
	return cfg
}

func key(k string) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{Table: "t", Key: k}}}
}

func propose(t testing.TB, n *Node, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, err := n.Propose(t.Context(), key(k)); err != nil {
			t.Fatal(err)
		}
	}
}

func requireError(t testing.TB, err, want error, not ...error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
	for _, other := range not {
		if errors.Is(err, other) {
			t.Fatalf("error %v is also %v", err, other)
		}
	}
}

func requireStartError(t testing.TB, cfg Config, sm StateMachine, want string) {
	t.Helper()
	n, err := Start(quiet(cfg), sm)
	if err == nil {
		shut(t, n)
		t.Fatalf("it started, want %q", want)
	}
	if !strings.Contains(err.Error(), want) {
		t.Fatalf("error is %q, want %q", err, want)
	}
}
