package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/linear"
)

var simulations = flag.Int("simulations", seedsByDefault, "how many seeds TestSimulation runs")
var firstSeed = flag.Uint64("seed", 1, "the first of them")
var callsEach = flag.Int("calls", 30, "how many calls each client of TestSimulation makes")

// TestSimulation has clients write and read at all members while these are cut
// off, killed, started again and so on, by a schedule that follows from a seed.
// What the clients saw must be possible one after the other, and in the end all
// members hold everything that was acknowledged. The schedule of goroutines is
// not seeded: the same seed need not fail twice.
func TestSimulation(t *testing.T) {
	applied, reads := 0, 0
	for i := range uint64(*simulations) {
		seed := *firstSeed + i
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				n := simulate(t, seed)
				applied, reads = applied+n.Applied, reads+n.Reads
			})
		})
	}
	if applied == 0 || reads == 0 {
		t.Errorf("%d writes and %d reads came about", applied, reads)
	}
	t.Logf("%d writes and %d reads", applied, reads)
}

type simulation struct {
	*group
	random  *rand.Rand
	history *linear.History
	nodes   []string

	noting sync.Mutex
	acked  map[string]string
}

func simulate(t *testing.T, seed uint64) linear.Counts {
	s := &simulation{
		random:  rand.New(rand.NewPCG(seed, 2)),
		history: linear.NewHistory(),
		acked:   map[string]string{},
	}
	trail := 1 + uint64(s.random.IntN(8))
	s.group = newGroup(t, seed, func(c *Config) {
		c.trail = trail // so that who is away for long needs a snapshot
		// No two clocks go alike.
		c.Election = 250*time.Millisecond + time.Duration(s.random.IntN(150))*time.Millisecond
	})
	s.nodes = []string{"a", "b", "c", "d", "e"}[:3+2*s.random.IntN(2)]
	s.found(s.nodes...)
	s.net.SetDelay(time.Duration(s.random.IntN(20)) * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var faults, clients sync.WaitGroup
	faults.Go(func() { s.disturb(ctx) })
	for client := range 4 {
		random := rand.New(rand.NewPCG(seed, uint64(client)+10))
		clients.Go(func() { s.client(ctx, client, random) })
	}
	clients.Wait()
	cancel()
	faults.Wait()
	s.net.Heal()
	s.net.SetDelay(0)
	for _, name := range s.nodes {
		if s.node(name) == nil {
			s.start(name)
		}
	}
	state := s.converge()
	for key, value := range s.acked {
		if state.Values[key] != value {
			t.Errorf("%s was acknowledged as %q, and is %q", key, value, state.Values[key])
		}
	}
	s.history.Require(t, time.Minute)
	return s.history.Counts()
}

// running returns the node and the registers of a member, if it runs.
func (s *simulation) running(name string) (*Node, *registers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[name].node, s.members[name].sm
}

func (s *simulation) client(ctx context.Context, client int, random *rand.Rand) {
	seen := map[string]string{}
	for i := range *callsEach {
		node, sm := s.running(s.nodes[random.IntN(len(s.nodes))])
		if node == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		key, value := fmt.Sprint("k", random.IntN(3)), fmt.Sprintf("%d-%d", client, i)
		call, cancel := context.WithTimeout(ctx, time.Duration(200+random.IntN(3000))*time.Millisecond)
		switch random.IntN(4) {
		case 0:
			w := s.history.Put(client, key, value)
			result, err := node.Propose(call, put(key, value))
			w.End(outcomeOf(result, err))
		case 1:
			w := s.history.CompareAndSet(client, key, seen[key], value)
			result, err := node.Propose(call, compareAndSet(key, seen[key], value))
			w.End(outcomeOf(result, err))
		case 2:
			own := "own-" + value
			if _, err := node.Propose(call, put(own, value)); err == nil {
				s.noting.Lock()
				s.acked[own] = value
				s.noting.Unlock()
			}
		default:
			r := s.history.Read(client, key)
			if err := node.ReadBarrier(call); err != nil {
				r.Failed()
			} else {
				seen[key] = sm.get(key)
				r.Saw(seen[key])
			}
		}
		cancel()
		time.Sleep(time.Duration(random.IntN(120)) * time.Millisecond)
	}
}

func outcomeOf(result any, err error) linear.Outcome {
	switch {
	case errors.Is(err, ErrUnknown):
		return linear.Unknown
	case err != nil:
		return linear.Refused
	case result == mismatch:
		return linear.Mismatch
	}
	return linear.Applied
}

// disturb does one thing after the other to the cluster.
func (s *simulation) disturb(ctx context.Context) {
	for ctx.Err() == nil {
		s.fault(ctx, s.nodes[s.random.IntN(len(s.nodes))], s.nodes[s.random.IntN(len(s.nodes))])
		select {
		case <-time.After(time.Duration(50+s.random.IntN(900)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (s *simulation) fault(ctx context.Context, one, other string) {
	node, _ := s.running(one)
	switch s.random.IntN(9) {
	case 0:
		s.net.Isolate(one)
	case 1:
		if one != other {
			s.net.Cut(one, other)
		}
	case 2, 3:
		s.net.Heal()
	case 4:
		s.net.Break(one)
	case 5:
		if node != nil {
			s.kill(one)
		}
	case 6:
		for _, name := range s.nodes {
			if node, _ := s.running(name); node == nil {
				s.start(name)
			}
		}
	case 7:
		if node != nil {
			short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			_ = node.Transfer(short, "")
			cancel()
		}
	case 8:
		if node != nil {
			_ = node.Snapshot()
		}
	}
}
