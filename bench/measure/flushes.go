package measure

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Flushes is how often the disk that holds a directory was told to flush its
// cache since the machine has started, by anybody. The kernel answers several
// calls of fsync by one flush when they wait at the same time.
func Flushes(dir string) (int64, error) {
	var at unix.Stat_t
	if err := unix.Stat(dir, &at); err != nil {
		return 0, fmt.Errorf("find the disk of %s: %w", dir, err)
	}
	stats, err := os.ReadFile("/proc/diskstats")
	if err != nil {
		return 0, fmt.Errorf("count flushes: %w", err)
	}
	return flushes(string(stats), unix.Major(at.Dev), unix.Minor(at.Dev))
}

func flushes(stats string, major, minor uint32) (int64, error) {
	const flushesField = 18 // of a line: two numbers, the name, then statistics
	for line := range strings.Lines(stats) {
		fields := strings.Fields(line)
		if len(fields) > flushesField && fields[0] == fmt.Sprint(major) && fields[1] == fmt.Sprint(minor) {
			return strconv.ParseInt(fields[flushesField], 10, 64)
		}
	}
	return 0, errors.New("count flushes: the kernel counts none for this file system")
}
