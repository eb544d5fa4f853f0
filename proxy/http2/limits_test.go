package http2_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
)

// A drained connection serves what was sent before the client could know.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	s := serveOn(t, func(_ *place, x *exchange.Exchange) { <-release; hello(nil, x) }, nil)
	s.greet()
	s.open(1, true, request("GET", "/")...)
	s.conn.Drain()
	var ping *xhttp2.PingFrame
	for ping == nil {
		f, err := s.framer.ReadFrame()
		s.must(err)
		switch f := f.(type) {
		case *xhttp2.GoAwayFrame:
			if f.LastStreamID != 1<<31-1 || f.ErrCode != xhttp2.ErrCodeNo {
				t.Errorf("the first GOAWAY is %v", f)
			}
		case *xhttp2.PingFrame:
			ping = f
		}
	}
	s.open(3, true, request("GET", "/")...) // it was on its way
	s.must(s.framer.WritePing(true, ping.Data))
	for {
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f, ok := f.(*xhttp2.GoAwayFrame); ok {
			if f.LastStreamID != 3 {
				t.Errorf("the second GOAWAY is %v", f)
			}
			break
		}
	}
	s.open(5, true, request("GET", "/")...) // it was not
	close(release)
	for range 2 {
		f, err := s.framer.ReadFrame()
		s.must(err)
		for f.Header().Type != xhttp2.FrameData {
			f, err = s.framer.ReadFrame()
			s.must(err)
		}
		if id := f.Header().StreamID; id != 1 && id != 3 {
			t.Errorf("stream %d is served", id)
		}
	}
	if _, err := s.framer.ReadFrame(); err != io.EOF {
		t.Errorf("then: %v", err)
	}
	s.client.Close()
	<-s.done
}

func TestDrainOfAnIdleConnection(t *testing.T) {
	s := serveOn(t, hello, nil)
	s.greet()
	s.conn.Drain()
	if _, err := io.Copy(io.Discard, s.client); err != nil { // it does not even answer the ping
		t.Error(err)
	}
	s.client.Close()
	<-s.done
}

func TestIdleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveOnPipe(t, hello, func(c *http2.Config) { c.Idle = 75 * time.Second })
		s.greet()
		time.Sleep(50 * time.Second)
		s.open(1, true, request("GET", "/")...)
		if got := s.outcome(1); got != "200 content-length: 5 hello" {
			t.Errorf("got %q", got)
		}
		answered := time.Now()
		if got := s.outcome(3); got != "GOAWAY NO_ERROR" {
			t.Errorf("got %q", got)
		}
		if idle := time.Since(answered); idle != 75*time.Second {
			t.Errorf("it ends after %s", idle)
		}
		s.close()
	})
}

func TestSettingsAreAwaited(t *testing.T) {
	short := func(c *http2.Config) { c.Head = 50 * time.Millisecond }
	t.Run("the client's own", func(t *testing.T) {
		s := serveOn(t, hello, short)
		_, err := io.WriteString(s.client, http2.Preface)
		s.must(err)
		if got := s.outcome(0); got != "GOAWAY SETTINGS_TIMEOUT" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("its word on ours", func(t *testing.T) {
		s := serveOn(t, hello, short)
		_, err := io.WriteString(s.client, http2.Preface)
		s.must(err)
		s.must(s.framer.WriteSettings())
		if got := s.outcome(0); got != "GOAWAY SETTINGS_TIMEOUT" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the rest of a head", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := serveOnPipe(t, hello, func(c *http2.Config) { c.Head = 10 * time.Second })
			s.greet()
			s.must(s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: s.head(request("GET", "/")...)}))
			if got := s.outcome(1); got != "GOAWAY ENHANCE_YOUR_CALM" {
				t.Errorf("got %q", got)
			}
			s.close()
		})
	})
	t.Run("not even a preface", func(t *testing.T) {
		s := serveOn(t, hello, short)
		if _, err := io.Copy(io.Discard, s.client); err != nil {
			t.Error(err)
		}
	})
}

// What a client does over a long time is not held against it.
func TestPatienceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveOnPipe(t, hello, func(c *http2.Config) { c.Idle = 24 * time.Hour })
		go func() { // or the pipe would block
			for {
				if _, err := s.framer.ReadFrame(); err != nil {
					return
				}
			}
		}()
		_, err := io.WriteString(s.client, http2.Preface)
		s.must(err)
		s.must(s.framer.WriteSettings())
		s.must(s.framer.WriteSettingsAck())
		for range 3000 {
			time.Sleep(10 * time.Second)
			s.must(s.framer.WritePing(false, [8]byte{}))
		}
		s.close()
	})
}

// A client may measure the way by a ping with each answer, as gRPC's do.
func TestPingsWithAnswersAreNoFlood(t *testing.T) {
	s := serveOn(t, hello, nil)
	s.greet()
	for i := range 3000 {
		s.open(uint32(1+2*i), true, request("GET", "/")...)
		if got := s.outcome(uint32(1 + 2*i)); got != "200 content-length: 5 hello" {
			t.Fatalf("request %d: got %q", i, got)
		}
		s.must(s.framer.WritePing(false, [8]byte{}))
	}
}

// A client that costs more than it asks for is told to calm down.
func TestFloods(t *testing.T) {
	const calm = "GOAWAY ENHANCE_YOUR_CALM"
	for name, flood := range map[string]func(s *server, i int) error{
		"pings":    func(s *server, _ int) error { return s.framer.WritePing(false, [8]byte{}) },
		"settings": func(s *server, _ int) error { return s.framer.WriteSettings() },
		"priorities": func(s *server, _ int) error {
			return s.framer.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3})
		},
		"unknown frames": func(s *server, _ int) error { return s.framer.WriteRawFrame(0xee, 0, 0, nil) },
		"windows":        func(s *server, _ int) error { return s.framer.WriteWindowUpdate(0, 1) },
		"empty data":     func(s *server, _ int) error { return s.framer.WriteData(1, false, nil) },
		"rapid resets": func(s *server, i int) error {
			id := uint32(3 + 2*i)
			if err := s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: s.head(request("GET", "/")...), EndStream: true, EndHeaders: true}); err != nil {
				return err
			}
			return s.framer.WriteRSTStream(id, xhttp2.ErrCodeCancel)
		},
		"a head without end": func(s *server, i int) error {
			if i == 0 {
				return s.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: s.head(request("GET", "/")...)})
			}
			return s.framer.WriteContinuation(3, false, s.head([2]string{"x", "y"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveOn(t, func(p *place, x *exchange.Exchange) { <-p.cut; x.Answer(200, nil) }, nil)
			s.greet()
			s.open(1, false, request("POST", "/")...)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for i := range 100_000 {
					if flood(s, i) != nil {
						return
					}
				}
			}()
			if got := s.outcome(1); got != calm && got != "closed" {
				t.Errorf("got %q", got)
			}
			s.client.Close()
			<-sent
		})
	}
}

// However many streams a client opens, no more than allowed are served at once.
func TestTooManyStreams(t *testing.T) {
	release := make(chan struct{})
	s := serveOn(t, func(_ *place, x *exchange.Exchange) { <-release; hello(nil, x) }, nil)
	s.greet()
	for i := range http2.MaxStreams + 1 {
		s.open(uint32(1+2*i), true, request("GET", "/")...)
	}
	if got := s.outcome(2*http2.MaxStreams + 1); got != "RST_STREAM REFUSED_STREAM" {
		t.Errorf("got %q", got)
	}
	close(release)
	for range http2.MaxStreams {
		f, err := s.framer.ReadFrame()
		s.must(err)
		for f.Header().Type != xhttp2.FrameData {
			f, err = s.framer.ReadFrame()
			s.must(err)
		}
	}
}

// A client that reads what it got only once all of it is there gives the windows
// back then, some for each few kilobytes, as net/http's does.
func TestWindowsGivenBackLateAreNoFlood(t *testing.T) {
	const streams, size = 100, 100 << 10
	s := serveOn(t, func(_ *place, x *exchange.Exchange) { x.Answer(200, make([]byte, size)) }, nil)
	s.greet(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 20})
	s.must(s.framer.WriteWindowUpdate(0, 1<<30))
	for id := uint32(1); id < 2*streams; id += 2 {
		s.open(id, true, request("GET", "/")...)
	}
	for ended := 0; ended < streams; {
		f, err := s.framer.ReadFrame()
		s.must(err)
		if f, ok := f.(*xhttp2.DataFrame); ok && f.StreamEnded() {
			ended++
		}
	}
	for range streams * size / (4 << 10) {
		s.must(s.framer.WriteWindowUpdate(1, 4<<10))
		s.must(s.framer.WriteWindowUpdate(0, 4<<10))
	}
	s.open(2*streams+1, true, request("HEAD", "/")...)
	if got := s.outcome(2*streams + 1); !strings.HasPrefix(got, "200") {
		t.Errorf("got %q", got)
	}
}
