//go:build linux

package node

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// fileBacked is how much of the program and its files this process holds, in KiB.
func fileBacked(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Skip("this kernel does not say how much that is")
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestShedProgram(t *testing.T) {
	before := fileBacked(t)
	shedProgram()
	if after := fileBacked(t); after >= before {
		t.Errorf("%d KiB before, %d KiB after", before, after)
	}
}
