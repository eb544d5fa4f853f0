package wire_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/wire"
)

// narrow makes a socket hold little that the peer has not taken, so that small
// pieces, too, must wait.
func narrow(t *testing.T, c *wire.Conn) {
	t.Helper()
	if err := c.Net().(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
}

// TestSmallPiecesThroughAFullSocket: all arrive, once, and in order.
func TestSmallPiecesThroughAFullSocket(t *testing.T) {
	c, peer := pair(t)
	narrow(t, c)
	const pieces, size = 1000, 3001
	wrong := make(chan string, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(wrong)
		from := wire.New(peer)
		defer from.Free()
		for at := 0; at < pieces*size; {
			if err := from.Fill(wire.SmallBuffer, wire.SmallBuffer); err != nil {
				wrong <- err.Error()
				return
			}
			for _, b := range from.Buffered() {
				if b != byte(at/size) {
					wrong <- "another piece's byte"
					peer.Close()
					return
				}
				at++
			}
			from.Discard(len(from.Buffered()))
			from.Release()
		}
	})
	piece := make([]byte, size)
	for i := range pieces {
		for at := range piece {
			piece[at] = byte(i)
		}
		c.SetOut(append(c.Out(), piece...))
		if err := c.Flush(); err != nil {
			t.Error(err)
			break
		}
	}
	c.Close()
	reader.Wait()
	if what := <-wrong; what != "" {
		t.Error(what)
	}
}

// TestSmallWritesTimeOut: a socket that is full is waited for no longer than the
// deadline says.
func TestSmallWritesTimeOut(t *testing.T) {
	c, _ := pair(t)
	narrow(t, c)
	c.WriteUntil(time.Now().Add(50 * time.Millisecond))
	for range 64_000 {
		c.SetOut(append(c.Out(), make([]byte, 1000)...))
		if err := c.Flush(); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("64 MB fit into a socket that nobody reads")
}

// TestSmallWritesToAPeerThatIsGone fail, and are no signal to the process.
func TestSmallWritesToAPeerThatIsGone(t *testing.T) {
	c, peer := pair(t)
	if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
		t.Fatal(err)
	}
	if err := c.Fill(1, 100); err == nil || err == io.EOF {
		t.Fatalf("the peer has broken off: %v", err)
	}
	c.SetOut(append(c.Out(), "hello"...))
	if err := c.Flush(); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v", err)
	}
}

// TestWhoWaitsIsToldOfAClose: and never reads what comes on the next socket that
// has the number of this one.
func TestWhoWaitsIsToldOfAClose(t *testing.T) {
	for range 50 {
		c, peer := pair(t)
		read := make(chan error, 1)
		go func() { read <- c.Fill(1, 100) }()
		c.Close()
		next, nextPeer := pair(t) // most likely takes over the number
		send(t, nextPeer, "for another")
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if len(c.Buffered()) > 0 {
			t.Errorf("it has read %q", c.Buffered())
		}
		await(t, next, len("for another"))
		peer.Close()
	}
}
