//go:build linux

package wal

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/weirmesh/weir/test/powercut"
)

// asWriter makes the test binary a writer to the log in its directory.
const asWriter = "WAL_TEST_WRITER"

func TestMain(m *testing.M) {
	if os.Getenv(asWriter) == "" {
		os.Exit(m.Run())
	}
	if err := writeOn(os.Args[1]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

// writeOn reads the whole log, then goes on with it until it is killed: it
// appends, deletes the oldest, and now and then replaces the newest.
func writeOn(dir string) error {
	l, err := Open(dir, Options{SegmentBytes: 16 << 10})
	if err != nil {
		return err
	}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	for i := first; i <= last && last > 0; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return err
		}
		if string(e.Data) != dataOf(i) {
			return fmt.Errorf("entry %d holds %.20q", i, e.Data)
		}
	}
	fmt.Println("have", last)
	rnd := rand.New(rand.NewPCG(last, 3))
	for {
		if last > 60 && rnd.IntN(20) == 0 {
			first, _ := l.FirstIndex()
			if err := l.DeleteRange(first, last-50); err != nil {
				return err
			}
		}
		if last > 60 && rnd.IntN(10) == 0 {
			fmt.Println("taking", last-3)
			if err := l.DeleteRange(last-2, last); err != nil {
				return err
			}
			last -= 3
		}
		var batch []*raft.Log
		for range 1 + rnd.IntN(4) {
			last++
			batch = append(batch, &raft.Log{Index: last, Term: 1, Data: []byte(dataOf(last))})
		}
		if err := l.StoreLogs(batch); err != nil {
			return err
		}
		fmt.Println("stored", last)
	}
}

func dataOf(n uint64) string { return strings.Repeat(fmt.Sprint(n, " "), int(n%200)) }

func TestPowerCutLosesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	disk := powercut.New(t, powercut.Options{Seed: 1, SyncTime: time.Millisecond})
	rnd := rand.New(rand.NewPCG(5, 5))
	safe, lost := uint64(0), 0
	for cut := range 15 {
		have, stored, report, said := cutLife(ctx, t, disk, 5+rnd.IntN(40))
		if said != "" {
			t.Fatalf("cut %d: %s", cut, said)
		}
		if have < safe {
			t.Fatalf("cut %d: the log ends at %d, but %d was safe", cut, have, safe)
		}
		safe = stored
		lost += report.LostPages
	}
	if safe < 100 || lost == 0 {
		t.Errorf("it tested nothing: %d entries, %d pages lost", safe, lost)
	}
}

// cutLife runs a writer until it has stored so many batches, cuts the power while
// it goes on, and says up to where it had the log, and what it then knew safe.
func cutLife(ctx context.Context, t *testing.T, disk *powercut.Disk, batches int) (have, safe uint64, report powercut.Report, failed string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, disk.Dir())
	cmd.Env = append(os.Environ(), asWriter+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cut := false
	lines := bufio.NewScanner(stdout)
	for lines.Scan() { // to the end: what was said before the cut counts
		var n uint64
		switch line := lines.Text(); {
		case scan(line, "have %d", &n):
			have, safe = n, n
		case scan(line, "stored %d", &n):
			batches--
			safe = n
		case scan(line, "taking %d", &n):
			safe = n
		case !cut && failed == "":
			failed = line
		}
		if !cut && (batches <= 0 || failed != "") {
			report, cut = disk.Cut(), true
			cmd.Process.Kill()
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !cut {
		report = disk.Cut()
	}
	disk.Mount()
	return have, safe, report, failed
}

func scan(line, format string, n *uint64) bool {
	count, err := fmt.Sscanf(line, format, n)
	return err == nil && count == 1
}
