package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/test/edge"
)

var (
	duration = flag.Duration("for", 8*time.Second, "how long the load goes on")
	seed     = flag.Uint64("seed", 1, "decides what upstreams and clients do")
)

func TestSoak(t *testing.T) {
	before, files := goleak.IgnoreCurrent(), descriptors(t)
	s := start(t)
	s.load(*duration / 2)
	s.rest()
	half := s.memory()
	s.load(*duration / 2)
	s.rest()
	all := s.memory()
	t.Logf("%d answered, %d lost; %d KiB in use after half of it, %d KiB after all", s.answered.Load(), s.lost.Load(), half>>10, all>>10)
	if s.answered.Load() < 100 {
		t.Errorf("only %d requests were answered", s.answered.Load())
	}
	if all > half+half/4+2<<20 {
		t.Errorf("%d KiB are in use after half of the load, %d KiB after all of it", half>>10, all>>10)
	}
	// A collection closes descriptors that nobody holds any more, and so hides
	// who forgot them: the last of the load goes without one.
	percent, most := debug.SetGCPercent(-1), debug.SetMemoryLimit(512<<20)
	defer debug.SetGCPercent(percent)
	defer debug.SetMemoryLimit(most)
	s.load(time.Second)
	s.stop()
	waitFor(t, func() error { return goleak.Find(before) })
	waitFor(t, func() error {
		if now := descriptors(t); now > files {
			return fmt.Errorf("%d descriptors are open, there were %d", now, files)
		}
		return nil
	})
}

// soak is an edge, the upstreams behind it, and what clients have made of them.
type soak struct {
	t         *testing.T
	edge      *edge.Edge
	upstreams []*upstream
	phase     uint64

	ids, answered, lost atomic.Int64
}

// start has one upstream that stays well and three that do not.
func start(t *testing.T) *soak {
	s := &soak{t: t}
	for range 4 {
		s.upstreams = append(s.upstreams, startUpstream(t))
	}
	s.edge = edge.StartWith(t, func(c *proxy.Config) {
		c.ClientIdle, c.ClientHead, c.ClientStall = 5*time.Second, 5*time.Second, 5*time.Second
	}, s.service(), s.route())
	return s
}

// service is declared anew again and again, each time with other terms.
func (s *soak) service() *weirv1.Service {
	d := edge.Service("s")
	for _, u := range s.upstreams {
		d.Spec.Endpoints = append(d.Spec.Endpoints, &weirv1.Endpoint{Address: u.addr})
	}
	d.Spec.LoadBalancing = &weirv1.LoadBalancing{Policy: weirv1.LoadBalancing_Policy(1 + rand.IntN(3))}
	d.Spec.OutlierDetection = &weirv1.OutlierDetection{BaseEjectionTime: durationpb.New(50 * time.Millisecond),
		MaxEjectionTime: durationpb.New(200 * time.Millisecond)}
	return d
}

func (s *soak) route() *weirv1.Route {
	r := edge.Route("r", "/", "s")
	r.Spec.Rules[0].Timeouts = &weirv1.RouteTimeouts{Request: durationpb.New(2 * time.Second), BackendRequest: durationpb.New(300 * time.Millisecond)}
	r.Spec.Rules[0].Retry = &weirv1.RouteRetry{Attempts: 2, Codes: []uint32{503}, Backoff: durationpb.New(time.Millisecond)}
	return r
}

// load lets clients loose while moods and the configuration change.
func (s *soak) load(d time.Duration) {
	s.phase++
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { s.weather(ctx) })
	for i := range 12 {
		c := &client{t: s.t, addr: s.edge.Addr, rand: rand.New(rand.NewPCG(*seed, s.phase<<8+uint64(i))),
			ids: &s.ids, answered: &s.answered, lost: &s.lost}
		all.Go(func() {
			switch i % 6 {
			case 0, 1:
				c.overHTTP(ctx, false)
			case 2, 3:
				c.overHTTP(ctx, true)
			case 4:
				c.vanisher(ctx)
			default:
				c.talker(ctx)
			}
		})
	}
	all.Wait()
}

// weather changes the moods of all upstreams but the first, and what is declared.
func (s *soak) weather(ctx context.Context) {
	r := rand.New(rand.NewPCG(*seed, s.phase))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(r.IntN(40)) * time.Millisecond):
		}
		s.upstreams[1+r.IntN(len(s.upstreams)-1)].set(moods[r.IntN(len(moods))])
		if r.IntN(10) == 0 {
			s.edge.Apply(s.service(), s.route())
		}
	}
}

// rest makes all upstreams well and waits until every answer shows it.
func (s *soak) rest() {
	s.t.Helper()
	for _, u := range s.upstreams {
		waitFor(s.t, func() error {
			if u.set(well); !u.alive() {
				return fmt.Errorf("%s cannot listen again", u.addr)
			}
			return nil
		})
	}
	tr := &http.Transport{DisableKeepAlives: true}
	good := 0
	waitFor(s.t, func() error {
		r, _ := http.NewRequest("GET", "http://"+s.edge.Addr+"/?n=10", nil)
		r.Header.Set("X-Id", "rest")
		resp, err := tr.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		if good++; err != nil || resp.StatusCode != 200 {
			good = 0
		}
		if good < 50 {
			return fmt.Errorf("the service is not well again: %v", err)
		}
		return nil
	})
}

// memory is what is in use once what is kept for reuse has been let go.
func (s *soak) memory() uint64 {
	var m runtime.MemStats
	least := ^uint64(0)
	for range 5 { // a pool lets go at the second collection
		runtime.GC()
		runtime.ReadMemStats(&m)
		least = min(least, m.HeapAlloc+m.StackInuse)
		time.Sleep(20 * time.Millisecond) // what still ends may end
	}
	return least
}

func (s *soak) stop() {
	s.edge.Stop()
	for _, u := range s.upstreams {
		u.stop()
	}
}

func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("descriptors cannot be counted here: %v", err)
	}
	return len(all)
}

// waitFor waits until nothing is wrong.
func waitFor(t *testing.T, wrong func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(edge.Patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = wrong(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
