package rpc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/internal/memnet"
)

const stall = 3 * time.Second

// pair is a client and the server it calls, until the test ends.
func pair(t *testing.T, handle Handler) (*Client, *memnet.Net) {
	t.Helper()
	network := memnet.New(1)
	a, b := network.Host("a", "a"), network.Host("b", "b")
	near, err := a.Dial(t.Context(), "b", "b")
	if err != nil {
		t.Fatal(err)
	}
	far, _, err := b.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(served); Serve(ctx, far, stall, handle) }()
	c := NewClient(near, stall)
	t.Cleanup(func() { _ = c.Close(); cancel(); <-served })
	return c, network
}

func echo(_ context.Context, method byte, payload []byte) (byte, []byte) {
	return method + 1, append([]byte("re: "), payload...)
}

func TestManyCallsShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t, echo)
		var calls sync.WaitGroup
		for i := range 200 {
			calls.Go(func() {
				want := fmt.Sprint("re: ", i)
				code, got, err := c.Call(t.Context(), 7, []byte(fmt.Sprint(i)))
				if err != nil || code != 8 || string(got) != want {
					t.Errorf("%d %q %v, want %q", code, got, err, want)
				}
			})
		}
		calls.Wait()
		large := bytes.Repeat([]byte("x"), 3<<20)
		if _, got, err := c.Call(t.Context(), 1, large); err != nil || len(got) != len(large)+4 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, _, err := c.Call(t.Context(), 1, make([]byte, MaxPayload+1)); !errors.Is(err, ErrNotSent) {
			t.Errorf("a call that is too large: %v", err)
		}
	})
}

func TestTheEndOfACallReachesTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, answer := make(chan error, 1), make(chan struct{})
		c, _ := pair(t, func(ctx context.Context, _ byte, _ []byte) (byte, []byte) {
			<-ctx.Done()
			ended <- ctx.Err()
			<-answer
			return 0, nil
		})
		defer close(answer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, _, err := c.Call(ctx, 1, nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotSent) {
			t.Errorf("error is %v", err)
		}
		if err := <-ended; err == nil {
			t.Error("the server went on")
		}
		if _, _, err := c.Call(ctx, 1, nil); !errors.Is(err, ErrNotSent) {
			t.Errorf("a call whose time is over: %v", err)
		}
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		if _, _, err := c.Call(ctx, 1, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the server's context ended by %v", err)
		}
	})
}

func TestStreamThatBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, network := pair(t, func(ctx context.Context, _ byte, _ []byte) (byte, []byte) {
			<-ctx.Done()
			return 0, nil
		})
		time.Sleep(time.Hour) // it lives on without calls
		go func() { time.Sleep(time.Second); network.Break("b") }()
		if _, _, err := c.Call(t.Context(), 1, nil); !errors.Is(err, ErrBroken) || errors.Is(err, ErrNotSent) {
			t.Errorf("error is %v", err)
		}
		<-c.Done()
		if _, _, err := c.Call(t.Context(), 1, nil); !errors.Is(err, ErrNotSent) {
			t.Errorf("a call after the end: %v", err)
		}
	})
}

func TestStreamThatFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, network := pair(t, echo)
		network.Cut("b", "a")
		began := time.Now()
		if _, _, err := c.Call(t.Context(), 1, nil); !errors.Is(err, ErrBroken) {
			t.Errorf("error is %v", err)
		}
		if took := time.Since(began); took > 2*stall {
			t.Errorf("it took %v", took)
		}
		network.Heal()
	})
}

func TestTooManyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c, _ := pair(t, func(context.Context, byte, []byte) (byte, []byte) { <-release; return 0, nil })
		var calls sync.WaitGroup
		for range maxCalls {
			calls.Go(func() { _, _, _ = c.Call(t.Context(), 1, nil) })
		}
		synctest.Wait()
		if code, _, err := c.Call(t.Context(), 1, nil); err != nil || code != Busy {
			t.Errorf("code %d, %v", code, err)
		}
		close(release)
		calls.Wait()
	})
}

// FuzzReadFrame: foreign bytes are an error or a frame, never a panic; a frame
// comes back as it was.
func FuzzReadFrame(f *testing.F) {
	for _, frame := range []frame{
		{kind: frameCall, id: 1, method: 2, timeout: time.Second, payload: []byte("x")},
		{kind: frameAnswer, id: 1, method: 2, payload: []byte("y")},
		{kind: frameCancel, id: 9}, {kind: framePing}, {kind: framePong},
	} {
		f.Add(appendFrame(nil, frame))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readFrame(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		again, err := readFrame(bufio.NewReader(bytes.NewReader(appendFrame(nil, got))))
		if err != nil || again.kind != got.kind || again.id != got.id || again.method != got.method ||
			again.timeout != got.timeout || !bytes.Equal(again.payload, got.payload) {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
	})
}

func TestFramesEndWhereTheySay(t *testing.T) {
	data := appendFrame(appendFrame(nil, frame{kind: framePing}), frame{kind: frameAnswer, id: 3, payload: []byte("z")})
	r := bufio.NewReader(bytes.NewReader(data))
	if f, err := readFrame(r); err != nil || f.kind != framePing {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := readFrame(r); err != nil || f.id != 3 || string(f.payload) != "z" {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := readFrame(r); err != io.EOF {
		t.Errorf("error is %v", err)
	}
}

// lastWord writes all it is given, and says that it failed.
type lastWord struct{ net.Conn }

func (c lastWord) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, errors.Join(err, os.ErrDeadlineExceeded)
}

// A stream may hand on the last byte and still say that it was too late. The
// call may be done then, and must not be said to have not been sent.
func TestCallOfWhichAllWasWrittenMayBeDone(t *testing.T) {
	near, far := net.Pipe()
	seen, returned := make(chan struct{}), make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		Serve(t.Context(), far, time.Minute, func(context.Context, byte, []byte) (byte, []byte) {
			close(seen)
			<-returned // an answer would be one, whatever the stream has said
			return 0, nil
		})
	}()
	c := NewClient(lastWord{near}, time.Minute)
	_, _, err := c.Call(t.Context(), 1, []byte("x"))
	<-seen
	close(returned)
	if err == nil || errors.Is(err, ErrNotSent) {
		t.Errorf("error is %v", err)
	}
	_ = c.Close()
	<-served
}
