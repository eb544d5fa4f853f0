package wasm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
)

// usage is what a leak would show in.
type usage struct {
	heap       uint64
	maps       int
	goroutines int
}

// settle measures until that says no less any more: the engine unmaps compiled code in
// finalizers, which take their time where others work, too.
func settle(t *testing.T) usage {
	least := measure(t)
	for same := 0; same < 10; same++ {
		now := measure(t)
		if now.heap+64<<10 < least.heap || now.maps < least.maps || now.goroutines < least.goroutines {
			same = 0
		}
		least = usage{min(least.heap, now.heap), min(least.maps, now.maps), min(least.goroutines, now.goroutines)}
	}
	return least
}

// measure lets finalizers run.
func measure(t *testing.T) usage {
	for range 4 {
		runtime.GC()
		time.Sleep(2 * time.Millisecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("this system does not tell its mappings")
	}
	return usage{m.HeapAlloc, bytes.Count(maps, []byte{'\n'}), runtime.NumGoroutine()}
}

// TestNothingIsLeft: 200 times a policy is made, used, made to trap, released.
func TestNothingIsLeft(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	f := newFixture(t, Config{})
	// Rounds alternate between a small module, compiled anew each time, and
	// stock Go's, which comes from the cache every tenth time.
	once := func(i int) {
		m := smallest()
		m.exports = append(m.exports, fmt.Sprint("name", i))
		module := m.bytes()
		s := spec(fmt.Sprintf(`"tick %d"`, i))
		s.Digest = digest(module)
		if i%10 == 0 {
			s.Digest = digest(guest)
		}
		f.modules[digest(module)] = module
		p, err := f.host.Make(context.Background(), s, nil)
		if err != nil {
			t.Fatal(err)
		}
		serve([]policy.Policy{p}, message{fields: "x-in: v"}, message{})
		serve([]policy.Policy{p}, do("request: trap"), message{})
		p.Release()
		delete(f.modules, digest(module))
	}
	for i := range 20 {
		once(i)
	}
	before := settle(t)
	for i := range rounds {
		once(i)
	}
	// The runtime maps a stack for each thread it starts, when it likes; what a policy
	// leaves, each round leaves. And what is only late is gone in the end.
	left := func(u usage) bool {
		return u.heap > before.heap+1<<20 || u.maps > before.maps+rounds/4 || u.goroutines > before.goroutines
	}
	after := settle(t)
	for limit := time.Now().Add(time.Minute); left(after) && time.Now().Before(limit); {
		after = settle(t)
	}
	t.Logf("before %+v, after %+v", before, after)
	if left(after) {
		t.Errorf("before %+v, after %d rounds %+v", before, rounds, after)
	}
}
