package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (g *group) backup(at string) []byte {
	g.t.Helper()
	var b bytes.Buffer
	if err := g.node(at).Backup(g.ctx(), "mesh", &b); err != nil {
		g.t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackupComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, func(c *Config) { c.trail = 4; c.Floor = func() uint64 { return 5000 } })
		g.found("a", "b", "c")
		g.write("a", "x", "kept")
		saved := g.backup(g.follower())
		g.write("b", "x", "lost")
		g.write("b", "y", "lost")
		leader := g.leader()
		if err := g.node(g.follower()).Restore(g.ctx(), "mesh", bytes.NewReader(saved)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("a follower restored: %v", err)
		}
		if err := g.node(leader).Restore(g.ctx(), "mesh", bytes.NewReader(saved)); err != nil {
			t.Fatal(err)
		}
		for _, name := range g.names() {
			if x, y := g.read(name, "x"), g.read(name, "y"); x != "kept" || y != "" {
				t.Errorf("%s reads %q and %q", name, x, y)
			}
		}
		result, err := g.node("c").Propose(g.ctx(), put("z", "after"))
		if err != nil {
			t.Fatal(err)
		}
		var index uint64
		if _, err := fmt.Sscanf(fmt.Sprint(result), "after at %d", &index); err != nil || index <= 5000 {
			t.Errorf("the next write is %v: indexes went back", result)
		}
		// And nothing of it is undone by a restart.
		for _, name := range g.names() {
			g.kill(name)
		}
		for _, name := range g.names() {
			g.start(name)
		}
		if x, z := g.read("b", "x"), g.read("b", "z"); x != "kept" || z != "after" {
			t.Errorf("after a restart: %q and %q", x, z)
		}
		g.converge()
	})
}

func TestDamagedBackupChangesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a")
		g.write("a", "x", "1")
		saved := g.backup("a")
		time.Sleep(5 * time.Second) // what a leader does of its own accord is done
		before := g.node("a").Status()
		restore := func(what, cluster string, data []byte, want string) {
			t.Helper()
			err := g.node("a").Restore(g.ctx(), cluster, bytes.NewReader(data))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error is %v, want %q", what, err, want)
			}
		}
		restore("nothing", "", nil, "does not begin")
		restore("of another cluster", "other", saved, `it is a backup of "mesh"`)
		restore("with a tail", "mesh", append(bytes.Clone(saved), 1), "follows its end")
		for size := range saved {
			restore(fmt.Sprint("cut to ", size), "mesh", saved[:size], ErrDamaged.Error())
		}
		random := rand.New(rand.NewPCG(1, 1))
		for range 100 {
			flipped := bytes.Clone(saved)
			at := random.IntN(len(flipped))
			flipped[at] ^= 1 << random.IntN(8)
			restore(fmt.Sprint("flipped at ", at), "mesh", flipped, ErrDamaged.Error())
		}
		g.members["a"].sm.refuse = errors.New("not of this version")
		restore("that the state machine does not take", "mesh", saved, "not of this version")
		if after := g.node("a").Status(); after.Last != before.Last {
			t.Errorf("the log went from %d to %d", before.Last, after.Last)
		}
		left, err := filepath.Glob(filepath.Join(g.members["a"].cfg.Dir, ".restore*"))
		if err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
	})
}

func TestNewClusterFromABackup(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		old := newGroup(t, 1, nil)
		old.found("a", "b", "c")
		old.write("a", "x", "kept")
		saved := old.backup("a")
		index := old.node("a").Status().Applied
		for _, name := range old.names() {
			old.stop(name)
		}
		g := newGroup(t, 2, nil)
		cfg := Config{Name: "n", Dir: filepath.Join(g.root, "n")}
		if err := FoundFrom(cfg, "mesh", bytes.NewReader(saved[:len(saved)-1]), nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("error is %v", err)
		}
		if err := FoundFrom(cfg, "mesh", bytes.NewReader(saved), nil); err != nil {
			t.Fatal(err)
		}
		if err := FoundFrom(cfg, "mesh", bytes.NewReader(saved), nil); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("founded once more: %v", err)
		}
		g.add("n", nil)
		if got := g.read("n", "x"); got != "kept" {
			t.Errorf("n reads %q", got)
		}
		if s := g.node("n").Status(); s.Applied <= index {
			t.Errorf("the index went from %d to %d", index, s.Applied)
		}
		m := g.add("m", nil)
		if err := m.node.Join(g.ctx(), []string{address("n")}); err != nil {
			t.Fatal(err)
		}
		g.eventually("m votes", func() bool { return g.role("m") == Voter })
		g.converge()
	})
}

func TestRecoveryFromOneSurvivor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, nil)
		g.found("a", "b", "c")
		g.write("a", "x", "kept")
		g.converge()
		for _, name := range g.names() {
			g.kill(name)
		}
		m := g.members["b"]
		if err := Recover(Config{Name: "a", Dir: m.cfg.Dir}, newRegisters(), []Member{{Name: "a"}}); err == nil {
			t.Error("a was recovered from the disk of b")
		}
		if err := Recover(Config{Name: "b", Dir: m.cfg.Dir}, newRegisters(), []Member{{Name: "a"}}); err == nil {
			t.Error("b was recovered without b")
		}
		survivor := newRegisters()
		if err := Recover(m.cfg, survivor, []Member{{Name: "b", Address: address("b")}}); err != nil {
			t.Fatal(err)
		}
		if survivor.held != 0 {
			t.Errorf("%d snapshots are not released, so that the state cannot be closed", survivor.held)
		}
		delete(g.members, "a")
		delete(g.members, "c")
		g.start("b")
		if got := g.read("b", "x"); got != "kept" {
			t.Errorf("b reads %q", got)
		}
		n := g.add("new", nil)
		if err := n.node.Join(g.ctx(), []string{address("b")}); err != nil {
			t.Fatal(err)
		}
		g.eventually("it votes", func() bool { return g.role("new") == Voter })
		g.converge()
	})
}

func TestSnapshotsOverASlowLine(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := newGroup(t, 1, func(c *Config) { c.trail = 2 })
		g.found("a", "b", "c")
		away := g.follower()
		g.stop(away)
		leader := g.leader()
		for i := range 30 {
			g.write(leader, fmt.Sprint("k", i), strings.Repeat("x", 64<<10))
		}
		for _, name := range g.names() {
			if n := g.node(name); n != nil {
				if err := n.Snapshot(); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Two megabytes at 100 KB a second take far longer than any election, and
		// any deadline of Raft's own.
		g.net.SetRate(100 << 10)
		g.start(away)
		time.Sleep(3 * time.Second)
		term := g.node(leader).Status().Term
		g.net.Break(away) // the first try is interrupted
		began := time.Now()
		writes := 0
		for g.node(away).Status().Applied < g.node(leader).Status().Commit {
			g.write(leader, "meanwhile", fmt.Sprint(writes))
			writes++
			time.Sleep(200 * time.Millisecond)
			if time.Since(began) > limit {
				t.Fatal("it never catches up")
			}
		}
		if took := time.Since(began); took < 10*time.Second {
			t.Errorf("it took %v: the line was not slow", took)
		}
		if got := g.node(leader).Status().Term; got != term || writes < 20 {
			t.Errorf("%d writes, terms %d to %d", writes, term, got)
		}
		parts, err := filepath.Glob(filepath.Join(g.members[away].cfg.Dir, "snapshots", "*.tmp"))
		if err != nil || len(parts) > 0 {
			t.Errorf("parts of snapshots are left: %v, %v", parts, err)
		}
		g.net.SetRate(0)
		g.converge()
	})
}

func TestInterruptedSnapshotsAreRemoved(t *testing.T) {
	cfg := config(t)
	n := start(t, cfg, new(ledger))
	propose(t, n, "a")
	shut(t, n)
	part := filepath.Join(cfg.Dir, "snapshots", "1-1-1.tmp")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, cfg, new(ledger))
	if _, err := os.Stat(part); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

// FuzzReadBackup: foreign bytes are an error, never a panic; what was whole
// stays so.
func FuzzReadBackup(f *testing.F) {
	var whole bytes.Buffer
	w := newBackupWriter(&whole)
	w.head(BackupInfo{Cluster: "mesh", Index: 7, Floor: 9, Taken: time.Unix(1, 2)})
	if _, err := w.Write([]byte("a state")); err != nil {
		f.Fatal(err)
	}
	if err := w.end(); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:20])
	f.Add([]byte(backupMagic + "\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var state bytes.Buffer
		info, err := readBackup(bytes.NewReader(data), &state)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("error is %v", err)
			}
			return
		}
		var again bytes.Buffer
		w := newBackupWriter(&again)
		w.head(info)
		_, _ = w.Write(state.Bytes())
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		if _, err := readBackup(&again, new(bytes.Buffer)); err != nil {
			t.Errorf("written again: %v", err)
		}
	})
}
