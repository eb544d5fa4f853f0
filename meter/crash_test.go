package meter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// crashDir tells the test program that it is the process that is to be killed.
const crashDir = "WEIR_METER_CRASH_DIR"

// TestKilled counts in processes that are killed with -9 at random moments, and compares
// what arrives with what they said they had counted.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		countUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(7, 7))
	lives := 12
	if testing.Short() {
		lives = 3
	}
	said, atMost := uint64(0), uint64(0)
	for life := range lives {
		n := killedAfter(t, dir, life, time.Duration(random.IntN(120))*time.Millisecond)
		said += n
		atMost += n + 1 // it may have counted one of which it could not say so
	}
	j := openJournal(t, config(t, filepath.Join(dir, "journal")), slotsPerSegment)
	j.runs(outbox(dir, -1))()
	s := newServers()
	readOutbox(t, dir, s)
	if got := s.sum(); got < said || got > atMost {
		t.Errorf("%d arrived; it was said that %d to %d were counted", got, said, atMost)
	}
	if said == 0 {
		t.Error("nothing was counted")
	}
	t.Logf("%d counted in %d lives, %d segments", said, lives, len(s.seen))
}

// killedAfter runs a process, kills it some time after its first word, and returns how
// many answers it said it had counted.
func killedAfter(t *testing.T, dir string, life int, after time.Duration) (said uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, "WEIR_METER_LIFE="+strconv.Itoa(life))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for first := true; ; first = false {
		b, err := r.ReadByte()
		if err == io.EOF {
			break
		}
		if err != nil || b != '.' {
			t.Fatalf("it said %q, %v", b, err)
		}
		if first {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		said++
	}
	_ = cmd.Wait()
	return said
}

// countUntilKilled counts, and says so by a byte each time.
func countUntilKilled(t *testing.T, dir string) {
	life, err := strconv.Atoi(os.Getenv("WEIR_METER_LIFE"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, filepath.Join(dir, "journal"))
	cfg.Every = 10 * time.Millisecond
	j, err := open(cfg, slotsOverflow+12)
	if err != nil {
		t.Fatal(err)
	}
	go j.Run(context.Background(), outbox(dir, life)) // ends with the process
	random := rand.New(rand.NewPCG(uint64(life), 1))
	for {
		j.Count(answer(fmt.Sprint("s", random.IntN(4)), fmt.Sprint("o", random.IntN(6)), 200+100*random.IntN(4)))
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return
		}
	}
}

// outbox takes reports by writing them to files. Every third is taken, and its answer
// is lost.
func outbox(dir string, life int) Report {
	n := 0
	return func(_ context.Context, m *weirv1.ReportUsageRequest) error {
		data, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		n++
		path := filepath.Join(dir, fmt.Sprintf("%d-%d", life, n))
		if err := os.WriteFile(path+".part", data, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".part", path+".report"); err != nil {
			return err
		}
		if life >= 0 && n%3 == 0 {
			return fmt.Errorf("the answer to report %d is lost", n)
		}
		return nil
	}
}

func readOutbox(t *testing.T, dir string, s *servers) {
	t.Helper()
	for _, path := range files(t, dir, ".report") {
		data, err := os.ReadFile(path)
		m := new(weirv1.ReportUsageRequest)
		if err == nil {
			err = proto.Unmarshal(data, m)
		}
		if err == nil {
			err = s.report(t.Context(), m)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}
