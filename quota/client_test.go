package quota

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// acquire is a request that has no deadline.
func acquire(c *Client, who *exchange.Consumer) Outcome {
	return c.Account(who).Acquire(time.Time{}, nil).Outcome
}

// admits sends requests one after the other until one is not admitted.
func admits(c *Client, who *exchange.Consumer) (n int, last Decision) {
	for {
		d := c.Account(who).Acquire(time.Time{}, nil)
		if d.Outcome != Admitted {
			return n, d
		}
		n++
	}
}

// atStart waits until a window has just begun.
func atStart(window time.Duration) {
	time.Sleep(window - time.Duration(time.Now().UnixNano())%window + time.Millisecond)
}

// Once nothing remains requests are refused here, until the window's end, and nobody is
// asked again.
func TestExceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(100, time.Minute)
		s := newServers(1, limit)
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		who := consumer("books", limit)
		atStart(time.Minute)
		n, d := admits(c, who)
		if n != 100 || d.Outcome != Exceeded || d.Limit != limit.Name || d.After > time.Minute || d.After < 50*time.Second {
			t.Errorf("%d were admitted, then %+v", n, d)
		}
		asks := s.asks
		for range 100 {
			time.Sleep(400 * time.Millisecond)
			if o := acquire(c, who); o != Exceeded {
				t.Fatalf("in the same window: %v", o)
			}
		}
		if s.asks != asks {
			t.Errorf("the servers were asked %d times more", s.asks-asks)
		}
		atStart(time.Minute)
		if n, _ := admits(c, who); n != 100 {
			t.Errorf("in the next window %d were admitted", n)
		}
	})
}

// Without a server what is exact is refused once the block is used, and another
// outcome than that of a limit that is exceeded; with one it goes on.
func TestNoServerForWhatIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(1000, time.Minute)
		s := newServers(1, limit)
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		who := consumer("books", limit)
		atStart(time.Minute)
		if o := acquire(c, who); o != Admitted {
			t.Fatalf("got %v", o)
		}
		time.Sleep(10 * time.Millisecond)
		s.setDown(true)
		n, d := admits(c, who)
		if n == 0 || n > 10 || d.Outcome != Unavailable || d.After <= 0 {
			t.Errorf("%d were admitted, then %+v", n, d)
		}
		began := time.Now()
		for range 1000 {
			if o := acquire(c, who); o != Unavailable {
				t.Fatalf("got %v", o)
			}
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("a thousand have waited %s for nobody", waited)
		}
		s.setDown(false)
		eventually(t, func() bool { return acquire(c, who) == Admitted })
	})
}

func eventually(t *testing.T, good func() bool) {
	t.Helper()
	for range 1000 {
		if good() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("it does not come about")
}

// A request that finds the block empty waits for the answer that is under way, unless
// it has no more time, or has left.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(100, time.Minute)
		s := newServers(1, limit)
		s.trip = 800 * time.Millisecond
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		who := consumer("books", limit)
		var waiting sync.WaitGroup
		var admitted, late, left int
		var mu sync.Mutex
		gone := make(chan struct{})
		for i := range 60 {
			waiting.Go(func() {
				deadline, done := time.Time{}, (chan struct{})(nil)
				switch i % 3 {
				case 1:
					deadline = time.Now().Add(time.Microsecond)
				case 2:
					done = gone
				}
				d := c.Account(who).Acquire(deadline, done)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case d.Outcome == Admitted:
					admitted++
				case d.Outcome == Left && i%3 == 1:
					late++
				case d.Outcome == Left && i%3 == 2:
					left++
				default:
					t.Errorf("request %d: %+v", i, d)
				}
			})
		}
		time.Sleep(time.Millisecond / 2)
		close(gone)
		waiting.Wait()
		if admitted != 20 || late != 20 || left != 20 {
			t.Errorf("%d admitted, %d were late, %d have left", admitted, late, left)
		}
		if n := c.waiting.Load(); n != 0 {
			t.Errorf("%d are said to wait yet", n)
		}
	})
}

// Of a plan's limits all give a token or none does.
func TestSeveralLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second, minute := exact(10, 10*time.Second), exact(25, time.Minute)
		s := newServers(1, second, minute)
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		who := consumer("books", second, minute)
		atStart(time.Minute)
		var got []string
		for range 4 {
			n, d := admits(c, who)
			got = append(got, fmt.Sprint(n, " ", d.Limit))
			atStart(10 * time.Second)
		}
		if want := "10 w10s, 10 w10s, 5 w1m0s, 0 w1m0s"; strings.Join(got, ", ") != want {
			t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
		}
		if policy := c.Account(who).Policy(); policy != `"w10s";q=10;w=10, "w1m0s";q=25;w=60` {
			t.Errorf("the policy is %s", policy)
		}
		if fields := string(c.Account(who).AppendRemaining(nil)); !strings.Contains(fields, `"w1m0s";r=0;t=20`) {
			t.Errorf("what remains is %s", fields)
		}
	})
}

// What nobody takes is given back, and others have it.
func TestIdleProxiesGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(1000, time.Minute)
		s := newServers(1, limit)
		a, stopA := start(t, s.as("edge/a"))
		defer stopA()
		b, stopB := start(t, s.as("edge/b"))
		defer stopB()
		who := consumer("books", limit)
		atStart(time.Minute)
		for range 300 { // a is used to much
			a.Account(who).Acquire(time.Time{}, nil)
			time.Sleep(2 * time.Millisecond)
		}
		ctx, cancel := context.WithCancel(t.Context())
		y := newTally(time.Minute)
		var asking sync.WaitGroup
		asking.Go(func() { demand(ctx, b, who, 100, y) })
		time.Sleep(30 * time.Second)
		cancel()
		asking.Wait()
		if n := y.outcomes[Admitted]; n != 700 {
			t.Errorf("%d were admitted of 700", n)
		}
	})
}

// A proxy that stops gives back what it has; one that is killed does not, and then that
// is lost for one window.
func TestProxiesThatEnd(t *testing.T) {
	for name, killed := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := exact(100, time.Minute)
				s := newServers(1, limit)
				who := consumer("books", limit)
				a, stopA := start(t, s.as("edge/a"))
				b, stopB := start(t, s.as("edge/b"))
				defer stopB()
				atStart(time.Minute)
				acquire(a, who)
				synctest.Wait()
				held := int(a.Account(who).limits[0].block.Load().left.Load())
				if killed {
					s.setDown(true)
				}
				stopA()
				s.setDown(false)
				n, _ := admits(b, who)
				if want := map[bool]int{false: 99, true: 99 - held}[killed]; n != want || held == 0 {
					t.Errorf("%d were admitted, want %d", n, want)
				}
				atStart(time.Minute)
				if n, _ := admits(b, who); n != 100 {
					t.Errorf("in the next window %d were admitted", n)
				}
			})
		})
	}
}

// A limit that is not exact waits for nobody. What passes beyond it is what came while
// an answer was under way; it is counted, and told.
func TestFastLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 500
		limit := fast(1000, 20*time.Second)
		s := newServers(1, limit)
		s.trip = 20 * time.Millisecond
		y, who := newTally(limit.Window), consumer("books", limit)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var clients []*Client
		for i := range 2 {
			c, stop := start(t, s.as(fmt.Sprint("edge/", i)))
			defer stop()
			clients = append(clients, c)
			all.Go(func() {
				for sleep(ctx, time.Second/rate) == nil {
					before := time.Now()
					y.count(c.Account(who).Acquire(time.Time{}, nil))
					if waited := time.Since(before); waited > 0 {
						t.Errorf("one has waited %s", waited)
						return
					}
				}
			})
		}
		atStart(limit.Window)
		time.Sleep(3*limit.Window - 2*time.Millisecond)
		cancel()
		all.Wait()
		bound := 1000 + 2*rate*30/1000 // a round trip of both, and what is gathered before
		worst := 0
		for w, n := range y.admitted {
			worst = max(worst, n-1000)
			if n > bound {
				t.Errorf("window %d: %d have passed, at most %d were to", w, n, bound)
			}
		}
		told := max(clients[0].meters.overshoot.Load(), clients[1].meters.overshoot.Load())
		t.Logf("worst %d, told %d: %v", worst, told, y.admitted)
		if s.records["books/"+limit.Name].GetOvershoot() != told {
			t.Errorf("the worst was %d, the proxies say %d, the servers %d", worst, told, s.records["books/"+limit.Name].GetOvershoot())
		}
	})
}

// With no server to ask a limit that is not exact goes on, by the share of this proxy.
func TestNoServerForWhatIsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := fast(100, 10*time.Second)
		s := newServers(1, limit)
		who := consumer("books", limit)
		a, stopA := start(t, s.as("edge/a"))
		defer stopA()
		b, stopB := start(t, s.as("edge/b"))
		defer stopB()
		atStart(limit.Window)
		for range 20 {
			acquire(a, who)
			acquire(b, who)
			time.Sleep(20 * time.Millisecond)
		}
		s.setDown(true)
		for range 3 {
			atStart(limit.Window)
			time.Sleep(200 * time.Millisecond)
			acquire(a, who) // it finds out that nobody answers
			acquire(b, who)
			time.Sleep(200 * time.Millisecond)
			na, da := admits(a, who)
			nb, _ := admits(b, who)
			if na < 48 || na > 50 || nb < 48 || nb > 50 || da.Outcome != Exceeded {
				t.Errorf("%d and %d were admitted, then %+v", na, nb, da)
			}
		}
		s.setDown(false)
		atStart(limit.Window)
		eventually(t, func() bool { acquire(a, who); return !a.silent() })
	})
}

// What is declared anew counts at once; a limit that is no more is not waited for.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(10, time.Minute)
		s := newServers(1, limit)
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		atStart(time.Minute)
		if n, _ := admits(c, consumer("books", limit)); n != 10 {
			t.Fatalf("%d were admitted", n)
		}
		more := limit
		more.Requests = 25
		s.limits[limit.Name] = ledgerLimit(more)
		if n, _ := admits(c, consumer("books", more)); n != 15 {
			t.Errorf("%d more were admitted", n)
		}
		other := exact(10, time.Hour)
		if n, d := admits(c, consumer("books", other)); n != 0 || d.Outcome != Unavailable {
			t.Errorf("of one that the servers do not know %d were admitted, then %+v", n, d)
		}
	})
}

// Who does not come for long is forgotten, and comes back with what it has used.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := exact(100, 24*time.Hour)
		s := newServers(1, limit)
		c, stop := start(t, s.as("edge/a"))
		defer stop()
		for range 3 {
			for range 20 {
				acquire(c, consumer("books", limit)) // a consumer of its own each time
			}
			time.Sleep(2 * forgotten)
			kept := 0
			c.accounts.Range(func(any, any) bool { kept++; return true })
			c.mu.Lock()
			limits := len(c.limits)
			c.mu.Unlock()
			if kept != 0 || limits != 0 {
				t.Errorf("%d accounts and %d limits are kept", kept, limits)
			}
		}
		if n, _ := admits(c, consumer("books", limit)); n != 40 {
			t.Errorf("then %d were admitted of 40", n)
		}
	})
}

// Proxies, and what they hold, come and go while all else goes wrong as well.
func TestNeverMoreWhateverHappens(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { whatever(t, seed) })
		})
	}
}

func whatever(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	limit := exact(1+r.Uint64N(200), time.Duration(1+r.IntN(20))*time.Second)
	s := newServers(seed, limit)
	s.lose, s.double, s.trip = r.IntN(20), r.IntN(40), time.Duration(1+r.IntN(400))*time.Millisecond
	y, who := newTally(limit.Window), consumer("books", limit)
	ctx, cancel := context.WithTimeout(t.Context(), 4*limit.Window)
	defer cancel()
	var all sync.WaitGroup
	for i := range 3 {
		rate, lives := 1+200*r.Float64(), time.Duration(1+r.IntN(30))*time.Second
		all.Go(func() {
			for ctx.Err() == nil {
				c, stop := start(t, s.as(fmt.Sprint("edge/", i)))
				life, end := context.WithTimeout(ctx, lives)
				demand(life, c, who, rate, y)
				end()
				stop()
			}
		})
	}
	if r.IntN(2) == 0 {
		all.Go(func() {
			for down := false; sleep(ctx, rand.N(5*time.Second)) == nil; down = !down {
				s.setDown(down)
			}
		})
	}
	all.Wait()
	for w, n := range y.admitted {
		if n > int(limit.Requests) {
			t.Errorf("window %d: %d were admitted of %d", w, n, limit.Requests)
		}
	}
}

func TestAcquireAllocatesNothing(t *testing.T) {
	c, who := ready(t)
	if n := testing.AllocsPerRun(1000, func() {
		if acquire(c, who) != Admitted {
			t.Fatal("it is not admitted")
		}
	}); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

// ready is a client that holds more than a test takes.
func ready(t testing.TB) (*Client, *exchange.Consumer) {
	limits := []exchange.Limit{exact(1<<50, time.Hour), exact(1<<50, 24*time.Hour)}
	c := New(slog.New(slog.DiscardHandler))
	who := consumer("books", limits...)
	for _, l := range c.Account(who).limits {
		b := &block{}
		b.add(1 << 50)
		b.until(int64(time.Hour), int64(time.Hour))
		l.block.Store(b)
	}
	return c, who
}

func BenchmarkAcquire(b *testing.B) {
	c, who := ready(b)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			acquire(c, who)
		}
	})
	b.Run("together", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				acquire(c, who)
			}
		})
	})
	b.Run("fields", func(b *testing.B) {
		buf := make([]byte, 0, 200)
		for b.Loop() {
			buf = c.Account(who).AppendRemaining(buf[:0])
		}
	})
}
