package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/relay"
)

// open is a tap that lets everything pass.
type open struct{}

func (open) Attach(_, _ func())                                   {}
func (open) FromClient(p []byte, end bool) ([]byte, bool, error)  { return p, end, nil }
func (open) FromService(p []byte, end bool) ([]byte, bool, error) { return p, end, nil }
func (open) Broken(bool)                                          {}

// valve is a tap that keeps what the client says until it is opened.
type valve struct {
	mu         sync.Mutex
	kept       []byte
	end, open  bool
	wakeClient func()
	err        error
	broken     chan bool
}

func (v *valve) Attach(client, _ func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wakeClient = client
}

func (v *valve) FromClient(p []byte, end bool) ([]byte, bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = append(v.kept, p...)
	v.end = v.end || end
	if !v.open {
		return nil, false, v.err
	}
	out := bytes.Clone(v.kept)
	v.kept = v.kept[:0]
	return out, v.end, v.err
}

func (v *valve) FromService(p []byte, end bool) ([]byte, bool, error) {
	return bytes.ToUpper(p), end, nil
}

func (v *valve) Broken(client bool) { v.broken <- client }

func (v *valve) turn(err error) {
	v.mu.Lock()
	v.open, v.err = true, err
	v.mu.Unlock()
	v.wakeClient()
}

func (v *valve) await(t *testing.T, what func() bool) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		v.mu.Lock()
		ok := what()
		v.mu.Unlock()
		if ok {
			return
		}
		if time.Since(begun) > 2*time.Minute {
			t.Fatal("it does not come")
		}
	}
}

// valved is a relay with a valve.
func valved(t *testing.T, said string) (*relayed, *valve) {
	t.Helper()
	r := &relayed{done: make(chan error, 1)}
	var nearClient, nearService *net.TCPConn
	nearClient, r.client = pair(t)
	nearService, r.service = pair(t)
	v := &valve{broken: make(chan bool, 2)}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(t.Context())
	t.Cleanup(r.cancel)
	go func() {
		r.done <- relay.RunTapped(ctx, relay.Plain(nearClient), relay.Plain(nearService), time.Minute, &r.counts, v, []byte(said))
	}()
	return r, v
}

// What a tap holds goes on when it lets go: while the client is silent, and when it
// has ended; the service is heard all the while.
func TestATapThatHolds(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprintf("the client has ended: %v", ends), func(t *testing.T) {
			r, v := valved(t, "first, ")
			io.WriteString(r.client, "hello")
			if ends {
				r.client.CloseWrite()
			}
			v.await(t, func() bool { return string(v.kept) == "first, hello" && v.end == ends })
			io.WriteString(r.service, "hi")
			got := make([]byte, 12)
			if _, err := io.ReadFull(r.client, got[:2]); err != nil || string(got[:2]) != "HI" {
				t.Errorf("%q, %v", got[:2], err)
			}
			v.turn(nil)
			if _, err := io.ReadFull(r.service, got); err != nil || string(got) != "first, hello" {
				t.Errorf("%q, %v", got, err)
			}
			if !ends {
				io.WriteString(r.client, " again")
				r.client.CloseWrite()
			}
			rest, err := io.ReadAll(r.service)
			if want := map[bool]string{true: "", false: " again"}[ends]; err != nil || string(rest) != want {
				t.Errorf("then %q, %v", rest, err)
			}
			r.service.Close()
			if err := <-r.done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A tap's error ends both sides: breaks them off, or closes them if it says so.
func TestATapThatEnds(t *testing.T) {
	broken := errors.New("broken")
	for want, polite := range map[error]bool{broken: false, fmt.Errorf("enough: %w", relay.ErrEnded): true} {
		r, v := valved(t, "")
		v.await(t, func() bool { return v.wakeClient != nil })
		v.turn(want)
		if err := <-r.done; !errors.Is(err, want) {
			t.Errorf("it ends with %v", err)
		}
		for _, side := range []*net.TCPConn{r.client, r.service} {
			if _, err := io.ReadAll(side); (err == nil) != polite {
				t.Errorf("%v: a side hears %v", want, err)
			}
		}
	}
}

// A tap is told whose connection broke.
func TestATapIsToldWhatBroke(t *testing.T) {
	for _, client := range []bool{true, false} {
		r, v := valved(t, "")
		v.await(t, func() bool { return v.wakeClient != nil })
		side := r.service
		if client {
			side = r.client
		}
		side.SetLinger(0)
		side.Close()
		if err := <-r.done; err == nil {
			t.Error("it ends well")
		}
		if got := <-v.broken; got != client {
			t.Errorf("the client broke it: %v", got)
		}
	}
}
