// Package freeport finds ports for tests that must name a port before anything
// listens on it: one is written into a declaration, or is to be the same after
// a restart.
//
// Binding port 0 and closing it again is not enough. The kernel hands the same
// port to the next who asks, another test's client among them, and a port that
// was free is taken when it is needed. So a port here comes from below the
// range that kernels hand out by themselves, and a lock on a file keeps all
// other tests of this machine from it until the test ends.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Ports lie in [first, end): above the well-known ones, below what Linux gives
// to clients (32768).
const first, end = 20000, 32000

// Port returns a port on which nothing listens on 127.0.0.1, on TCP and UDP
// alike, and which no other test is given until this one ends.
func Port(t testing.TB) int {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "weir-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	at := rand.IntN(end - first)
	for i := range end - first {
		port := first + (at+i)%(end-first)
		lock, err := reserve(filepath.Join(dir, strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		if lock == nil {
			continue
		}
		if !unused(port) {
			lock.Close()
			continue
		}
		t.Cleanup(func() { lock.Close() })
		return port
	}
	t.Fatalf("find a free port: all of %d to %d are taken", first, end-1)
	return 0
}

// Address is such a port on 127.0.0.1, as HOST:PORT.
func Address(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(Port(t)))
}

// reserve locks a file; nil when another has it. The lock ends with the process
// at the latest, so that a test that is killed keeps nothing.
func reserve(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func unused(port int) bool {
	tcp, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	udp.Close()
	return true
}
