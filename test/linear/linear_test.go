package linear

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const limit = 2 * time.Minute

func TestWhatIsAndIsNotLinearizable(t *testing.T) {
	done := func(c *WriteCall) { c.End(Applied) }
	tests := []struct {
		name string
		do   func(*History)
		want Verdict
	}{
		{"nothing", func(h *History) {}, Linearizable},
		{"a read before any write finds nothing", func(h *History) {
			h.Read(0, "k").Saw(Absent)
		}, Linearizable},
		{"a read finds what was written", func(h *History) {
			done(h.Put(0, "k", "1"))
			h.Read(1, "k").Saw("1")
		}, Linearizable},
		{"a stale read", func(h *History) {
			done(h.Put(0, "k", "1"))
			done(h.Put(0, "k", "2"))
			h.Read(1, "k").Saw("1")
		}, Violated},
		{"a lost write", func(h *History) {
			done(h.Put(0, "k", "1"))
			h.Read(1, "k").Saw(Absent)
		}, Violated},
		{"a value that nobody wrote", func(h *History) {
			h.Read(1, "k").Saw("1")
		}, Violated},
		{"a read during a write finds either", func(h *History) {
			w := h.Put(0, "k", "1")
			h.Read(1, "k").Saw(Absent)
			h.Read(1, "k").Saw("1")
			done(w)
		}, Linearizable},
		{"two reads during a write do not go back", func(h *History) {
			w := h.Put(0, "k", "1")
			h.Read(1, "k").Saw("1")
			h.Read(2, "k").Saw(Absent)
			done(w)
		}, Violated},
		{"keys are apart", func(h *History) {
			done(h.Put(0, "k", "1"))
			h.Read(1, "l").Saw(Absent)
		}, Linearizable},
		{"a removal", func(h *History) {
			done(h.Put(0, "k", "1"))
			done(h.Put(0, "k", Absent))
			h.Read(1, "k").Saw(Absent)
		}, Linearizable},

		{"a compare-and-set that finds its value", func(h *History) {
			done(h.CompareAndSet(0, "k", Absent, "1"))
			done(h.CompareAndSet(0, "k", "1", "2"))
			h.Read(0, "k").Saw("2")
		}, Linearizable},
		{"two of the same value both applied", func(h *History) {
			a, b := h.CompareAndSet(0, "k", Absent, "1"), h.CompareAndSet(1, "k", Absent, "2")
			done(a)
			done(b)
		}, Violated},
		{"two of the same value, one refused for it", func(h *History) {
			a, b := h.CompareAndSet(0, "k", Absent, "1"), h.CompareAndSet(1, "k", Absent, "2")
			done(a)
			b.End(Mismatch)
		}, Linearizable},
		{"a mismatch that was none", func(h *History) {
			h.CompareAndSet(0, "k", Absent, "1").End(Mismatch)
		}, Violated},
		{"a mismatch that wrote all the same", func(h *History) {
			done(h.Put(0, "k", "1"))
			h.CompareAndSet(0, "k", "2", "3").End(Mismatch)
			h.Read(0, "k").Saw("3")
		}, Violated},

		{"a write of unknown outcome that was done", func(h *History) {
			h.Put(0, "k", "1").End(Unknown)
			h.Read(1, "k").Saw("1")
		}, Linearizable},
		{"a write of unknown outcome that was not", func(h *History) {
			h.Put(0, "k", "1").End(Unknown)
			h.Read(1, "k").Saw(Absent)
		}, Linearizable},
		{"a write of unknown outcome that was done late", func(h *History) {
			h.Put(0, "k", "1").End(Unknown)
			done(h.Put(0, "k", "2"))
			h.Read(1, "k").Saw("2")
			h.Read(1, "k").Saw("1")
		}, Linearizable},
		{"a write of unknown outcome that was done twice", func(h *History) {
			h.Put(0, "k", "1").End(Unknown)
			h.Read(1, "k").Saw("1")
			done(h.Put(0, "k", "2"))
			h.Read(1, "k").Saw("1")
		}, Violated},
		{"a write that has not ended is unknown", func(h *History) {
			h.Put(0, "k", "1")
			h.Read(1, "k").Saw(Absent)
			h.Read(1, "k").Saw("1")
		}, Linearizable},
		{"a compare-and-set of unknown outcome that was done", func(h *History) {
			h.CompareAndSet(0, "k", Absent, "1").End(Unknown)
			h.Read(1, "k").Saw("1")
		}, Linearizable},
		{"a compare-and-set of unknown outcome that was not", func(h *History) {
			h.CompareAndSet(0, "k", Absent, "1").End(Unknown)
			done(h.CompareAndSet(1, "k", Absent, "2"))
			h.Read(1, "k").Saw("2")
		}, Linearizable},
		{"a compare-and-set of unknown outcome without its value", func(h *History) {
			h.CompareAndSet(0, "k", "0", "1").End(Unknown)
			h.Read(1, "k").Saw("1")
		}, Violated},
		{"a refused write that was done", func(h *History) {
			h.Put(0, "k", "1").End(Refused)
			h.Read(1, "k").Saw("1")
		}, Violated},
		{"reads that failed or never ended say nothing", func(h *History) {
			done(h.Put(0, "k", "1"))
			h.Read(1, "k").Failed()
			h.Read(1, "k")
			h.Read(1, "k").Saw("1")
		}, Linearizable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := NewHistory()
			test.do(h)
			verdict, page, err := h.Check(limit, t.TempDir())
			if err != nil || verdict != test.want {
				t.Fatalf("the history is %s (%v), want %s", verdict, err, test.want)
			}
			if verdict != Violated {
				return
			}
			if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "<html") {
				t.Errorf("the page has %d bytes: %v", len(html), err)
			}
		})
	}
}

// A register keeps a copy that lags behind, which a faulty store reads from.
type register struct {
	mu            sync.Mutex
	values, stale map[string]string
}

func (r *register) put(key, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stale[key] = r.values[key]
	r.values[key] = value
}

func (r *register) compareAndSet(key, expected, value string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.values[key] != expected {
		return false
	}
	r.stale[key] = expected
	r.values[key] = value
	return true
}

func (r *register) read(key string, stale bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stale {
		return r.stale[key]
	}
	return r.values[key]
}

// work is what one client does. Some of its writes are lost, before or after
// they were done; some of its reads are stale, if staleness is not 0.
func work(h *History, r *register, client int, staleness float64) {
	random := rand.New(rand.NewPCG(uint64(client), 0))
	for i := range 200 {
		key, value := fmt.Sprint(random.IntN(4)), fmt.Sprintf("%d.%d", client, i)
		switch random.IntN(3) {
		case 0:
			c := h.Read(client, key)
			c.Saw(r.read(key, random.Float64() < staleness))
		case 1:
			c := h.Put(client, key, value)
			lost := random.IntN(100)
			if lost != 0 {
				r.put(key, value)
			}
			if lost <= 1 {
				c.End(Unknown)
			} else {
				c.End(Applied)
			}
		case 2:
			expected := r.read(key, false)
			c := h.CompareAndSet(client, key, expected, value)
			if r.compareAndSet(key, expected, value) {
				c.End(Applied)
			} else {
				c.End(Mismatch)
			}
		}
	}
}

func history(staleness float64) *History {
	h, r := NewHistory(), &register{values: map[string]string{}, stale: map[string]string{}}
	var clients sync.WaitGroup
	for client := range 6 {
		clients.Go(func() { work(h, r, client, staleness) })
	}
	clients.Wait()
	return h
}

func TestManyClientsOfACorrectStore(t *testing.T) {
	h := history(0)
	h.Require(t, limit)
	n := h.Counts()
	if n.Reads == 0 || n.Applied == 0 || n.Unknown == 0 || n.Applied+n.Mismatched+n.Unknown+n.Reads != 6*200 {
		t.Errorf("%+v", n)
	}
}

// failing is a test that notes how it failed.
type failing struct {
	testing.TB
	said []string
}

func (f *failing) Helper()                        {}
func (f *failing) Errorf(format string, a ...any) { f.said = append(f.said, fmt.Sprintf(format, a...)) }

func TestRequireFailsAStoreWithStaleReads(t *testing.T) {
	f := &failing{TB: t}
	history(0.1).Require(f, limit)
	if len(f.said) != 1 || !strings.Contains(f.said[0], "not linearizable") || !strings.Contains(f.said[0], "history.html") {
		t.Errorf("it said %q", f.said)
	}
}

func TestRequireFailsWhatItCannotDecide(t *testing.T) {
	h := NewHistory()
	for i := range 40 {
		h.Put(i, "k", fmt.Sprint(i)).End(Unknown)
	}
	h.Read(0, "k").Saw("never written")
	f := &failing{TB: t}
	h.Require(f, 20*time.Millisecond)
	if len(f.said) != 1 || !strings.Contains(f.said[0], "undecided") {
		t.Errorf("it said %q", f.said)
	}
}

func TestMisuseIsCaught(t *testing.T) {
	for name, misuse := range map[string]func(h *History){
		"a call that ends twice": func(h *History) { c := h.Put(0, "k", "1"); c.End(Applied); c.End(Unknown) },
		"a put with a mismatch":  func(h *History) { h.Put(0, "k", "1").End(Mismatch) },
		"a read that ends twice": func(h *History) { c := h.Read(0, "k"); c.Failed(); c.Saw("1") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			misuse(NewHistory())
		})
	}
}
