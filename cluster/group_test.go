package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/internal/memnet"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// registers is a state machine of values by key. A command of the table "cas"
// has the expected value and the new one, with a zero between them.
type registers struct {
	mu      sync.Mutex
	values  map[string]string
	applied uint64
	entries int
	held    int   // snapshots that are not released
	taken   int   // snapshots that were restored
	back    bool  // one of them was older than the state
	refuse  error // what Check says
}

func newRegisters() *registers { return &registers{values: map[string]string{}} }

const mismatch = "mismatch"

func (r *registers) Apply(indexes []uint64, entries [][]byte) [][]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	results := make([][]any, len(entries))
	for i, data := range entries {
		entry := new(weirv1.Entry)
		if err := proto.Unmarshal(data, entry); err != nil {
			panic(err)
		}
		results[i] = make([]any, len(entry.Commands))
		if indexes[i] <= r.applied {
			continue
		}
		r.applied = indexes[i]
		r.entries++
		for j, c := range entry.Commands {
			results[i][j] = r.apply(c.GetPutValue(), indexes[i])
		}
	}
	return results
}

func (r *registers) apply(c *weirv1.PutValue, index uint64) any {
	value := string(c.GetValue())
	if c.GetTable() == "cas" {
		expected, next, _ := bytes.Cut(c.GetValue(), []byte{0})
		if r.values[c.GetKey()] != string(expected) {
			return mismatch
		}
		value = string(next)
	}
	r.values[c.GetKey()] = value
	return fmt.Sprintf("%s at %d", value, index)
}

func (r *registers) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

type registerState struct {
	Values  map[string]string
	Applied uint64
}

func (r *registers) state() registerState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return registerState{maps.Clone(r.values), r.applied}
}

func (r *registers) Snapshot() (func(io.Writer) error, func(), error) {
	state := r.state()
	r.hold(1)
	return func(w io.Writer) error { return json.NewEncoder(w).Encode(state) }, func() { r.hold(-1) }, nil
}

func (r *registers) hold(more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held += more
}

func (r *registers) Restore(from io.Reader) error {
	var state registerState
	if err := json.NewDecoder(from).Decode(&state); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken++
	r.back = r.back || state.Applied < r.applied
	r.values, r.applied = state.Values, state.Applied
	return nil
}

func (r *registers) restores() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}

func (r *registers) wentBack() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.back
}

func (r *registers) Check(io.Reader) error { return r.refuse }

func (r *registers) get(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[key]
}

// group is a cluster in one process, on a network in memory.
type group struct {
	t       testing.TB
	net     *memnet.Net
	root    string
	members map[string]*one
	adjust  func(*Config)
	copies  int

	mu sync.Mutex // guards the node and the sm of each member
}

// one is a member of a group; node is nil while it does not run.
type one struct {
	cfg  Config
	host *memnet.Host
	sm   *registers
	node *Node
}

func newGroup(t testing.TB, seed uint64, adjust func(*Config)) *group {
	g := &group{t: t, net: memnet.New(seed), root: fastDir(t), members: map[string]*one{}, adjust: adjust}
	t.Cleanup(func() {
		g.net.Heal()
		for _, name := range g.names() {
			g.stop(name)
		}
	})
	return g
}

// fastDir is a directory in memory, where there is such a thing: nothing of a
// group is about the disk.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "weir")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func address(name string) string { return name + ":7400" }

func (g *group) names() []string { return slices.Sorted(maps.Keys(g.members)) }

// found starts members that found a cluster together, and waits for a leader.
func (g *group) found(names ...string) {
	g.t.Helper()
	var founders []Member
	for _, name := range names {
		founders = append(founders, Member{Name: name, Address: address(name)})
	}
	for _, name := range names {
		g.add(name, func(c *Config) { c.Found = founders })
	}
	g.write(names[0], "founded", "yes")
}

// add starts a new member.
func (g *group) add(name string, adjust func(*Config)) *one {
	g.t.Helper()
	m := &one{cfg: Config{Name: name, Dir: filepath.Join(g.root, name), Address: address(name), unsafe: true, Reserve: -1, Logger: testLogger(g.t)}}
	if g.adjust != nil {
		g.adjust(&m.cfg)
	}
	if adjust != nil {
		adjust(&m.cfg)
	}
	g.members[name] = m
	g.start(name)
	return m
}

func testLogger(t testing.TB) *slog.Logger {
	if os.Getenv("WEIR_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a member from its disk; its state machine has lost everything.
func (g *group) start(name string) *Node {
	g.t.Helper()
	m := g.members[name]
	m.host = g.net.Host(name, m.cfg.Address)
	m.cfg.Network = m.host
	sm := newRegisters()
	node, err := Start(m.cfg, sm)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m.node, m.sm = node, sm
	return node
}

// stop ends a member in order.
func (g *group) stop(name string) {
	m := g.members[name]
	if m == nil || m.node == nil {
		return
	}
	if err := g.take(name).Close(); err != nil {
		g.t.Error(err)
	}
	_ = m.host.Close()
}

// kill ends a member at once: the others hear of it, but it does nothing more,
// and goes on from what its disk held at that moment.
func (g *group) kill(name string) {
	g.t.Helper()
	m := g.members[name]
	_ = m.host.Close()
	g.copies++
	left := filepath.Join(g.root, fmt.Sprintf("%s-%d", name, g.copies))
	if err := os.CopyFS(left, os.DirFS(m.cfg.Dir)); err != nil {
		g.t.Fatal(err)
	}
	node := g.take(name)
	m.cfg.Dir = left
	if err := node.Close(); err != nil {
		g.t.Error(err)
	}
}

// take takes the node of a member away: it no longer runs for others.
func (g *group) take(name string) *Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[name]
	node := m.node
	m.node = nil
	return node
}

func (g *group) node(name string) *Node { return g.members[name].node }

// limit bounds, in the time of the bubble, what must come about.
const limit = 2 * time.Minute

func (g *group) ctx() context.Context {
	ctx, cancel := context.WithTimeout(g.t.Context(), limit)
	g.t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func (g *group) eventually(what string, is func() bool) {
	g.t.Helper()
	for began := time.Now(); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > limit {
			for _, name := range g.names() {
				if n := g.node(name); n != nil {
					g.t.Logf("%s: %+v", name, n.Status())
				}
			}
			g.t.Fatalf("never: %s", what)
		}
	}
}

// leader waits for one on whom all running members agree.
func (g *group) leader() string {
	g.t.Helper()
	var leader string
	g.eventually("all know the same leader", func() bool {
		leader = ""
		for _, name := range g.names() {
			n := g.node(name)
			if n == nil {
				continue
			}
			if n.removed() || len(n.servers()) == 0 { // Status would read the disk
				continue
			}
			knows, _ := n.leadership.now()
			if knows == "" || leader != "" && knows != leader {
				return false
			}
			leader = knows
		}
		m := g.members[leader]
		return m != nil && m.node != nil && m.node.leads()
	})
	return leader
}

func (g *group) follower() string {
	g.t.Helper()
	leader := g.leader()
	for _, name := range g.names() {
		if name != leader && g.node(name) != nil {
			return name
		}
	}
	g.t.Fatal("there is no follower")
	return ""
}

func put(key, value string) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{Table: "put", Key: key, Value: []byte(value)}}}
}

func compareAndSet(key, expected, value string) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{Table: "cas", Key: key, Value: []byte(expected + "\x00" + value)}}}
}

// write writes at a member and has it read what it wrote.
func (g *group) write(at, key, value string) {
	g.t.Helper()
	if _, err := g.node(at).Propose(g.ctx(), put(key, value)); err != nil {
		g.t.Fatal(err)
	}
	if got := g.members[at].sm.get(key); got != value {
		g.t.Fatalf("%s has %q after it wrote %q", at, got, value)
	}
}

func (g *group) read(at, key string) string {
	g.t.Helper()
	if err := g.node(at).ReadBarrier(g.ctx()); err != nil {
		g.t.Fatal(err)
	}
	return g.members[at].sm.get(key)
}

// converge waits until all running members hold the same.
func (g *group) converge() registerState {
	g.t.Helper()
	g.write(g.leader(), "converged", fmt.Sprint(time.Now().UnixNano()))
	want := g.members[g.leader()].sm.state()
	for _, name := range g.names() {
		if g.node(name) == nil {
			continue
		}
		g.eventually(name+" holds the same", func() bool {
			got := g.members[name].sm.state()
			return maps.Equal(got.Values, want.Values)
		})
	}
	return want
}

func (g *group) role(name string) Role {
	for _, m := range g.node(g.leader()).members() {
		if m.Name == name {
			return m.Role
		}
	}
	return ""
}

// inBubble runs a test where time passes only when all wait.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func contains(s, part string) bool { return bytes.Contains([]byte(s), []byte(part)) }
