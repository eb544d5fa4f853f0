package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// stream is a stream between two hosts.
func stream(t *testing.T, n *Net) (near, far net.Conn) {
	t.Helper()
	a, b := n.Host("a", "a:1"), n.Host("b", "b:1")
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	near, err := a.Dial(t.Context(), "b:1", "b")
	if err != nil {
		t.Fatal(err)
	}
	far, from, err := b.Accept(t.Context())
	if err != nil || from != "a" {
		t.Fatalf("a stream from %q, %v", from, err)
	}
	return near, far
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := stream(t, n)
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		got, err := io.ReadAll(far)
		if err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading what was closed: %v", err)
		}
	})
}

func TestCutLinkKeepsWhatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := stream(t, n)
		n.Cut("a", "b")
		if _, err := near.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		_ = far.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it came through: %v", err)
		}
		if _, err := far.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, err := near.Read(make([]byte, 1)); err != nil {
			t.Errorf("the other direction is cut too: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.hosts["a:1"].Dial(ctx, "b:1", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a dial over a cut link: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		go func() { time.Sleep(time.Second); n.Heal() }()
		if _, err := far.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowLinkAndBrokenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		near, far := stream(t, n)
		n.SetRate(100 << 10)
		began := time.Now()
		go func() { _, _ = near.Write(make([]byte, 1<<20)) }()
		if _, err := io.ReadFull(far, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("a megabyte at 100 KB a second took %v", took)
		}
		n.Break("b")
		if _, err := near.Write([]byte("x")); !errors.Is(err, errReset) {
			t.Errorf("error is %v", err)
		}
		if _, err := n.hosts["a:1"].Dial(t.Context(), "b:1", "c"); err == nil {
			t.Error("a host answered to another's name")
		}
	})
}
