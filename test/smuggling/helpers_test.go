package smuggling_test

import (
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/test/edge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(edge.Patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, edge.Patience)
		}
	}
}

// send writes s, in one piece or byte by byte, and ends as it says. The other
// side may leave before it has heard everything.
func send(c *net.TCPConn, s, end string, piecemeal bool) {
	piece := len(s)
	if piecemeal {
		_ = c.SetNoDelay(true)
		piece = 1 + len(s)/500
	}
	for len(s) > 0 {
		n := min(piece, len(s))
		if _, err := c.Write([]byte(s[:n])); err != nil {
			return
		}
		s = s[n:]
	}
	switch end {
	case "close":
		_ = c.CloseWrite()
	case "reset":
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// dial opens a connection that the test closes at its end at the latest.
func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(edge.Patience))
	return c.(*net.TCPConn)
}

func isGone(err error) bool { return err != nil && !os.IsTimeout(err) }
