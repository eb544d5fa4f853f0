package measure

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestHistogramKeepsQuantiles(t *testing.T) {
	var h, half Histogram
	for i := 1; i <= 10_000; i++ {
		to := &h
		if i%2 == 0 {
			to = &half
		}
		to.Record(time.Duration(i) * time.Microsecond)
	}
	h.Add(&half)
	for q, want := range map[float64]time.Duration{0.5: 5 * time.Millisecond, 0.99: 9900 * time.Microsecond, 1: 10 * time.Millisecond} {
		if got := h.Quantile(q); got < want || float64(got) > 1.04*float64(want) {
			t.Errorf("quantile %v is %v, want %v or 4 %% more", q, got, want)
		}
	}
}

func TestEveryBucketEndsWhereTheNextBegins(t *testing.T) {
	for bucket := range buckets - 1 {
		end := upperEnd(bucket)
		if bucketOf(end) != bucket || bucketOf(end+1) != bucket+1 {
			t.Fatalf("bucket %d ends at %d, which is in %d, and %d in %d", bucket, end, bucketOf(end), end+1, bucketOf(end+1))
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) (strange name) S 7 42 42 0 -1 4194560 100 200 0 0 31 11 5 3 20 0 1 0 12345 1 2"
	got, err := parseStat(line)
	if want := (stat{parent: 7, ticks: 42, ended: 8, pages: 2}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 7", "42 (x) S 7 42 42 0 -1 4194560 100 200 0 0 x 11 5 3"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// What a process costs includes what its children do.
func TestCPUCountsChildren(t *testing.T) {
	script := "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; exec sleep 60' & wait"
	p, err := Start(t.TempDir()+"/spin", nil, "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	err = p.Until(t.Context(), func() error {
		if printed, _ := os.ReadFile(p.Log); !bytes.Contains(printed, []byte("done")) {
			return fmt.Errorf("printed %q", printed)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if used, err := p.CPU(); err != nil || used == 0 {
		t.Errorf("used %v, %v", used, err)
	}
}

func TestFlushesAreThoseOfTheDisk(t *testing.T) {
	stats := "254 1 vda1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 77 18\n" +
		"254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 42 18\n" +
		"7 0 loop0 1 2 3 4 5 6 7 8 9 10 11\n"
	if got, err := flushes(stats, 254, 0); err != nil || got != 42 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, unknown := range []uint32{7, 8} {
		if _, err := flushes(stats, unknown, 0); err == nil {
			t.Errorf("disk %d:0 has flushes", unknown)
		}
	}
}
