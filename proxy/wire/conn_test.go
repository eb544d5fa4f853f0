package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weirmesh/weir/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection under test and its peer, over loopback.
func pair(t testing.TB) (*wire.Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := wire.New(near)
	t.Cleanup(func() { c.Close(); c.Free(); far.Close() })
	return c, far.(*net.TCPConn)
}

func send(t testing.TB, to io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(to, s); err != nil {
		t.Fatal(err)
	}
}

// await fills until n bytes are buffered.
func await(t testing.TB, c *wire.Conn, n int) {
	t.Helper()
	for len(c.Buffered()) < n {
		if err := c.Fill(n, wire.LargeBuffer); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFillAndDiscard(t *testing.T) {
	c, peer := pair(t)
	send(t, peer, "hello")
	await(t, c, 5)
	c.Discard(2)
	if got := string(c.Buffered()); got != "llo" {
		t.Errorf("buffered %q", got)
	}
	send(t, peer, "!")
	await(t, c, 4)
	if got := string(c.Buffered()); got != "llo!" {
		t.Errorf("buffered %q", got)
	}
	c.Discard(4)
	c.Release()
	peer.CloseWrite()
	for range 2 { // the end stays the end
		if err := c.Fill(1, 1); err != io.EOF {
			t.Errorf("got %v", err)
		}
	}
}

func TestFillStopsAtItsLimit(t *testing.T) {
	c, peer := pair(t)
	go io.WriteString(peer, strings.Repeat("x", 2*wire.LargeBuffer))
	var err error
	for err == nil {
		err = c.Fill(wire.SmallBuffer, wire.LargeBuffer)
	}
	if !errors.Is(err, wire.ErrTooLong) || len(c.Buffered()) != wire.LargeBuffer {
		t.Errorf("%v with %d bytes", err, len(c.Buffered()))
	}
	c.Discard(10) // makes room
	if err := c.Fill(wire.SmallBuffer, wire.LargeBuffer); err != nil {
		t.Error(err)
	}
}

// What was detached stays as it is, whatever the connection and its neighbours
// read into the memory of the pool.
func TestDetachedMemoryIsNotUsedAgain(t *testing.T) {
	c, peer := pair(t)
	send(t, peer, "head|rest")
	await(t, c, 9)
	head := c.Buffered()[:5]
	held := c.Detach(5)
	if got := string(c.Buffered()); got != "rest" {
		t.Errorf("left %q", got)
	}
	for range 10 {
		c.Discard(len(c.Buffered()))
		send(t, peer, "XXXXXXXXXXXX")
		await(t, c, 12)
	}
	other, otherPeer := pair(t)
	send(t, otherPeer, "YYYYYYYYYYYY")
	await(t, other, 12)
	if string(head) != "head|" {
		t.Errorf("it became %q", head)
	}
	held.Free()
	held.Free() // once is enough, twice does no harm
}

func TestReadTimesOut(t *testing.T) {
	c, peer := pair(t)
	c.ReadUntil(time.Now().Add(time.Millisecond))
	if err := c.Fill(1, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	// It is no reason to give the connection up.
	c.ReadUntil(time.Now().Add(time.Minute))
	send(t, peer, "a")
	await(t, c, 1)
}

// A later deadline is only remembered; the earlier one, when it fires, must not
// be taken for it.
func TestRememberedReadDeadline(t *testing.T) {
	for _, later := range []time.Time{time.Now().Add(time.Minute), {}} {
		c, peer := pair(t)
		c.ReadUntil(time.Now().Add(5 * time.Millisecond))
		c.ReadUntil(later)
		var sender sync.WaitGroup
		sender.Go(func() {
			time.Sleep(30 * time.Millisecond) // the armed deadline fires meanwhile
			io.WriteString(peer, "a")
		})
		await(t, c, 1)
		sender.Wait()
	}
}

func TestRememberedWriteDeadline(t *testing.T) {
	for name, pending := range map[string]string{"alone": "", "with what is pending": "pending"} {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t)
			body := strings.Repeat("0123456789abcdef", 1<<20) // more than the sockets hold
			var got bytes.Buffer
			var reader sync.WaitGroup
			reader.Go(func() {
				time.Sleep(30 * time.Millisecond) // the armed deadline fires meanwhile
				io.Copy(&got, peer)
			})
			c.WriteUntil(time.Now().Add(5 * time.Millisecond))
			c.WriteUntil(time.Now().Add(time.Minute))
			c.SetOut(append(c.Out(), pending...))
			if err := c.Write([]byte(body)); err != nil {
				t.Error(err)
			}
			c.Close()
			reader.Wait()
			if got.String() != pending+body {
				t.Errorf("the peer has %d bytes", got.Len())
			}
		})
	}
}

func TestWriteTimesOut(t *testing.T) {
	c, _ := pair(t)
	c.WriteUntil(time.Now().Add(10 * time.Millisecond))
	if err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Small writes are gathered, in order with those that are too large for that.
func TestWritesKeepTheirOrder(t *testing.T) {
	c, peer := pair(t)
	var want strings.Builder
	var got bytes.Buffer
	var reader sync.WaitGroup
	reader.Go(func() { io.Copy(&got, peer) })
	for i := range 300 {
		part := strings.Repeat(string(rune('a'+i%26)), i*i%9000)
		want.WriteString(part)
		if err := c.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			c.SetOut(append(c.Out(), "appended"...))
			want.WriteString("appended")
		}
		if c.Pending() > 2*wire.SmallBuffer {
			t.Fatalf("%d bytes are pending", c.Pending())
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	reader.Wait()
	if got.String() != want.String() {
		t.Error("the peer read something else")
	}
}

func TestAbort(t *testing.T) {
	t.Run("a read that waits", func(t *testing.T) {
		c, _ := pair(t)
		c.ReadUntil(time.Now().Add(time.Minute))
		var aborter sync.WaitGroup
		aborter.Go(func() { c.AbortRead() })
		if err := c.Fill(1, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		aborter.Wait()
	})
	t.Run("a write that waits", func(t *testing.T) {
		c, _ := pair(t)
		c.WriteUntil(time.Now().Add(time.Minute))
		var aborter sync.WaitGroup
		aborter.Go(func() { c.Abort() })
		if err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		aborter.Wait()
	})
	t.Run("reads alone", func(t *testing.T) {
		c, peer := pair(t)
		c.WriteUntil(time.Now().Add(time.Millisecond))
		c.WriteUntil(time.Now().Add(time.Minute))
		c.AbortRead()
		time.Sleep(5 * time.Millisecond) // the armed deadline fires
		if err := c.Write(make([]byte, 5000)); err != nil {
			t.Errorf("a write fails too: %v", err)
		}
		send(t, peer, "a")
		if err := c.Fill(1, 100); err == nil {
			t.Error("it reads")
		}
		c.ResumeRead()
		c.ReadUntil(time.Now().Add(time.Minute))
		await(t, c, 1)
	})
}

// An abort must not be lost to a deadline that is renewed at the same time.
func TestAbortAgainstRenewal(t *testing.T) {
	for range 300 {
		c, _ := pair(t)
		c.ReadUntil(time.Now().Add(2 * time.Minute))
		var aborter sync.WaitGroup
		start := make(chan struct{})
		aborter.Go(func() { <-start; c.AbortRead() })
		close(start)
		c.ReadUntil(time.Now().Add(time.Minute)) // earlier than what is armed: arms
		if err := c.Fill(1, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		aborter.Wait()
		c.Close()
	}
}

// interrupted is a connection that is aborted just before a deadline is armed.
type interrupted struct {
	net.Conn
	abort func()
}

func (i *interrupted) SetReadDeadline(t time.Time) error {
	if abort := i.abort; abort != nil {
		i.abort = nil
		abort()
	}
	return i.Conn.SetReadDeadline(t)
}

func TestAbortIsNotUndone(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	i := &interrupted{Conn: near}
	c := wire.New(i)
	defer c.Close()
	i.abort = c.AbortRead
	c.ReadUntil(time.Now().Add(time.Minute))
	if err := c.Fill(1, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c.Free()
}

func TestAlive(t *testing.T) {
	c, peer := pair(t)
	if !c.Alive() {
		t.Error("an idle connection is alive")
	}
	if n := testing.AllocsPerRun(100, func() { c.Alive() }); n != 0 {
		t.Errorf("to look costs %v allocations", n)
	}
	send(t, peer, "x")
	await(t, c, 1)
	if c.Alive() {
		t.Error("with something unread it is not")
	}
	c.Discard(1)
	send(t, peer, "x")
	eventuallyDead(t, c)

	c, peer = pair(t)
	peer.Close()
	eventuallyDead(t, c)

	c, _ = pair(t)
	c.Close()
	if c.Alive() {
		t.Error("closed by ourselves, it is not")
	}
}

// eventuallyDead waits for what the peer did to arrive.
func eventuallyDead(t *testing.T, c *wire.Conn) {
	t.Helper()
	for range 1000 {
		if !c.Alive() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("it is still said to be alive")
}

func TestAsk(t *testing.T) {
	echo := func(peer *net.TCPConn) *sync.WaitGroup {
		var g sync.WaitGroup
		g.Go(func() { io.Copy(peer, peer) })
		return &g
	}
	t.Run("it sends and waits", func(t *testing.T) {
		for _, size := range []int{1, 500, 5000, 16 << 20} { // the last fits into no socket
			c, peer := pair(t)
			var reader sync.WaitGroup
			reader.Go(func() {
				n, _ := io.CopyN(io.Discard, peer, int64(size))
				fmt.Fprint(peer, n)
			})
			c.ReadUntil(time.Now().Add(time.Millisecond)) // fires, and is not the one that counts
			c.ReadUntil(time.Now().Add(time.Minute))
			time.Sleep(3 * time.Millisecond)
			c.SetOut(append(c.Out(), strings.Repeat("x", size)...))
			if err := c.Ask(wire.SmallBuffer, wire.LargeBuffer); err != nil {
				t.Fatal(err)
			}
			if got := string(c.Buffered()); got != fmt.Sprint(size) || c.Pending() != 0 {
				t.Errorf("the peer got %s of %d bytes, %d are pending", got, size, c.Pending())
			}
			reader.Wait()
		}
	})
	t.Run("it does not send to one that has closed or spoken", func(t *testing.T) {
		for _, close := range []bool{true, false} {
			c, peer := pair(t)
			if close {
				peer.CloseWrite()
			} else {
				send(t, peer, "HTTP/1.1 200 OK")
			}
			eventuallyDead(t, c)
			c.SetOut(append(c.Out(), "hello"...))
			if err := c.Ask(1, 100); err != wire.ErrStale {
				t.Fatalf("got %v", err)
			}
			other, otherPeer := pair(t)
			other.Adopt(c)
			c.Close()
			if got, err := io.ReadAll(peer); len(got) > 0 || err != nil && close {
				t.Errorf("the peer was sent %q, %v", got, err)
			}
			g := echo(otherPeer)
			if err := other.Ask(1, 100); err != nil || string(other.Buffered()) != "hello" {
				t.Errorf("the other got %q, %v", other.Buffered(), err)
			}
			other.Close()
			g.Wait()
		}
	})
	t.Run("it times out", func(t *testing.T) {
		c, _ := pair(t)
		c.ReadUntil(time.Now().Add(time.Millisecond))
		c.SetOut(append(c.Out(), "hello"...))
		if err := c.Ask(1, 100); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseBroken(t *testing.T) {
	c, peer := pair(t)
	send(t, c.Net(), "half of i")
	c.CloseBroken()
	if _, err := io.ReadAll(peer); err == nil {
		t.Error("the peer sees a clean end")
	}
}

// The plain path allocates nothing once it is warm.
func TestReadAndWriteAllocateNothing(t *testing.T) {
	c, peer := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(peer, peer)
	}()
	small, large := make([]byte, 500), make([]byte, 3000)
	n := testing.AllocsPerRun(200, func() {
		c.ReadUntil(time.Now().Add(time.Minute))
		c.WriteUntil(time.Now().Add(time.Minute))
		if err := c.Write(small); err != nil {
			t.Fatal(err)
		}
		c.SetOut(append(c.Out(), "gathered, then written with what follows"...))
		if err := c.Write(large); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := c.Write(large); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		await(t, c, 500+40+4*3000)
		c.Discard(len(c.Buffered()))
		c.Release()
	})
	if n >= 1 && !raceEnabled { // under the race detector pools forget on purpose
		t.Errorf("%v allocations", n)
	}
	c.Close()
	<-done
}

func BenchmarkAlive(b *testing.B) {
	c, _ := pair(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Alive()
	}
}

// BenchmarkAsk is a question and its answer, as a proxy asks an upstream.
func BenchmarkAsk(b *testing.B) {
	c, peer := pair(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		answers := wire.New(peer)
		for answers.Fill(wire.SmallBuffer, wire.LargeBuffer) == nil {
			answers.SetOut(append(answers.Out(), answers.Buffered()...))
			answers.Discard(len(answers.Buffered()))
			answers.Release()
			if answers.Flush() != nil {
				break
			}
		}
		answers.Free()
	}()
	question := make([]byte, 500)
	b.ReportAllocs()
	for b.Loop() {
		c.SetOut(append(c.Out(), question...))
		if err := c.Ask(wire.SmallBuffer, wire.LargeBuffer); err != nil {
			b.Fatal(err)
		}
		for len(c.Buffered()) < len(question) {
			if err := c.Fill(wire.SmallBuffer, wire.LargeBuffer); err != nil {
				b.Fatal(err)
			}
		}
		c.Discard(len(question))
		c.Release()
	}
	c.Close()
	<-done
}
