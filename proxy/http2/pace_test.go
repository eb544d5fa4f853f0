package http2_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
)

func hasty(c *http2.Config) { c.Stall = time.Second }

// every does something at short intervals, each of which is nothing to be cut for,
// until it fails or the test ends.
func every(t *testing.T, what func() error) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if what() != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// A client that gives room for a byte now and then is let go.
func TestDrippingWindows(t *testing.T) { synctest.Test(t, testDrippingWindows) }

func testDrippingWindows(t *testing.T) {
	s := serveOnPipe(t, func(_ *place, x *exchange.Exchange) {
		x.Answer(200, nil)
		x.Response.Body = endless{make([]byte, 1000)}
	}, hasty)
	s.greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
	s.open(1, true, request("GET", "/")...)
	every(t, func() error { return s.framer.WriteWindowUpdate(1, 1) })
	for {
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f.Header().Type == xhttp2.FrameRSTStream {
			return
		}
	}
}

// So is one that sends a body whose length it has told byte by byte; a body of
// unknown length may be a conversation.
func TestDrippingBodies(t *testing.T) { synctest.Test(t, testDrippingBodies) }

func testDrippingBodies(t *testing.T) {
	for _, declared := range []bool{true, false} {
		outcome := make(chan error, 1)
		s := serveOnPipe(t, func(_ *place, x *exchange.Exchange) {
			for n := 0; ; n++ {
				if _, err := x.Request.Body.Next(); err != nil || n == 100 {
					outcome <- err
					x.Answer(408, nil)
					return
				}
			}
		}, hasty)
		s.greet()
		head := request("POST", "/")
		if declared {
			head = append(head, [2]string{"content-length", "1000"})
		}
		s.open(1, false, head...)
		every(t, func() error { return s.framer.WriteData(1, false, []byte("x")) })
		go io.Copy(io.Discard, s.client)
		if err := <-outcome; errors.Is(err, os.ErrDeadlineExceeded) != declared {
			t.Errorf("declared %v: %v", declared, err)
		}
		s.client.Close()
	}
}
