//go:build linux

package powercut

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

const noSync = "POWERCUT_TEST_NO_SYNC"

// useDatabase says what is in the database, then adds to it from several
// goroutines and says what was committed, until it is killed.
func useDatabase(dir string) error {
	db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &bolt.Options{Timeout: time.Second, NoSync: os.Getenv(noSync) != ""})
	if err != nil {
		return err
	}
	if err := syncOf(".")(dir); err != nil { // bbolt does not see to its own name
		return err
	}
	bucket := []byte("b")
	var next uint64
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		for err := range tx.Check() {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			n := binary.BigEndian.Uint64(k)
			if string(v) != valueOf(n) {
				return fmt.Errorf("the value of %d is %.20q", n, v)
			}
			fmt.Println("have", n)
			next = n + 1
			return nil
		})
	})
	if err != nil {
		return err
	}
	fmt.Println("writing")
	var writers sync.WaitGroup
	failed := make(chan error, 3)
	for w := range uint64(3) {
		writers.Go(func() {
			for n := next + w; ; n += 3 {
				err := db.Update(func(tx *bolt.Tx) error {
					return tx.Bucket(bucket).Put(binary.BigEndian.AppendUint64(nil, n), []byte(valueOf(n)))
				})
				if err != nil {
					failed <- err
					return
				}
				fmt.Println("committed", n)
			}
		})
	}
	writers.Wait()
	return <-failed
}

// valueOf is long enough for a transaction to need several pages now and then.
func valueOf(n uint64) string { return strings.Repeat(fmt.Sprint(n, " "), 100) }

// A life is what one process did between two cuts.
type life struct {
	have, committed map[uint64]bool
	opened          bool // the database was whole
	report          Report
	said            string // the first line that is none of the above
}

// live runs the database until so many commits, cuts the power while it
// writes, and kills it.
func live(ctx context.Context, t *testing.T, disk *Disk, commits int, env ...string) life {
	t.Helper()
	cmd := part(ctx, t, "database", disk.Dir())
	cmd.Env = append(cmd.Env, env...)
	stdout, err := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := life{have: map[uint64]bool{}, committed: map[uint64]bool{}}
	cut := false
	lines := bufio.NewScanner(stdout)
	for lines.Scan() { // to the end: what was said before the cut counts
		var n uint64
		switch line := lines.Text(); {
		case line == "writing":
			l.opened = true
		case scan(line, "have %d", &n):
			l.have[n] = true
		case scan(line, "committed %d", &n):
			l.committed[n] = true
		case !cut && l.said == "":
			l.said = line
		}
		if !cut && len(l.committed) >= commits {
			l.report = disk.Cut()
			cut = true
			cmd.Process.Kill()
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !cut {
		l.report = disk.Cut()
	}
	disk.Mount()
	return l
}

func scan(line, format string, n *uint64) bool {
	count, err := fmt.Sscanf(line, format, n)
	return err == nil && count == 1
}

// slow is a sync that takes long enough for a cut to come in the midst of a commit.
const slow = time.Millisecond

func TestASyncedDatabaseLosesNothing(t *testing.T) {
	const cuts = 20
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	disk := New(t, Options{Seed: 1, SyncTime: slow})
	random := newRandom(2)
	committed := map[uint64]bool{}
	var total Report
	for i := range cuts {
		l := live(ctx, t, disk, 1+random.IntN(30))
		if !l.opened {
			t.Fatalf("cut %d: the database did not open: %s", i, l.said)
		}
		for n := range committed {
			if !l.have[n] {
				t.Errorf("cut %d: %d was committed and is lost", i, n)
			}
		}
		maps.Copy(committed, l.committed)
		total.LostPages += l.report.LostPages
		total.KeptPages += l.report.KeptPages
	}
	t.Logf("%d commits, %+v", len(committed), total)
	if total.LostPages == 0 || total.KeptPages == 0 {
		t.Errorf("the cuts did nothing: %+v", total)
	}
}

// The test above has teeth: without sync, commits are lost, or the database.
func TestADatabaseWithoutSyncLosesCommits(t *testing.T) {
	for _, loseAll := range []bool{true, false} {
		t.Run(fmt.Sprintf("loseAll=%v", loseAll), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			disk := New(t, Options{Seed: 1, LoseAll: loseAll})
			before := live(ctx, t, disk, 200, noSync+"=1")
			after := live(ctx, t, disk, 1, noSync+"=1")
			if !before.opened || loseAll && !after.opened || ctx.Err() != nil {
				t.Fatalf("the database did not open: %s %s", before.said, after.said)
			}
			lost := 0
			for n := range before.committed {
				if !after.have[n] {
					lost++
				}
			}
			t.Logf("%d of %d commits lost, opened: %v %s", lost, len(before.committed), after.opened, after.said)
			if lost == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}
