package overload

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// Limit is what the process may have: the smallest limit of its control group and
// of those around it. 0: there is none.
func Limit() int64 {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	return limitOf("/sys/fs/cgroup", own)
}

// limitOf reads the limits of the groups that /proc/self/cgroup names, of version 2
// ("0::/path") and of version 1 ("9:memory:/path").
func limitOf(root string, own []byte) int64 {
	least := int64(math.MaxInt64)
	for line := range bytes.Lines(own) {
		parts := bytes.SplitN(bytes.TrimSpace(line), []byte{':'}, 3)
		if len(parts) != 3 {
			continue
		}
		base, file := root, "memory.max"
		switch {
		case string(parts[0]) == "0" && len(parts[1]) == 0:
		case string(parts[1]) == "memory":
			base, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for path := filepath.Clean("/" + string(parts[2])); ; path = filepath.Dir(path) {
			least = min(least, readLimit(filepath.Join(base, path, file)))
			if path == "/" {
				break
			}
		}
	}
	if least >= 1<<60 { // "max", and what version 1 says for it
		return 0
	}
	return least
}

func readLimit(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

// anonymous is the process's resident memory that is no file's.
func anonymous() int64 {
	b, err := os.ReadFile("/proc/self/statm") // size resident shared …, in pages
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 3 {
		return 0
	}
	resident, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	shared, _ := strconv.ParseInt(string(fields[2]), 10, 64)
	return (resident - shared) * int64(os.Getpagesize())
}
