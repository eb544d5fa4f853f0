package consumer

import (
	"math/rand/v2"
	"testing"
)

// A trie is a map, whatever the hashes are worth, and those that were made before stay
// as they were.
func TestTrieIsAMap(t *testing.T) {
	for name, hash := range map[string]func(int) uint64{
		"good hashes":       func(k int) uint64 { return rand.New(rand.NewPCG(1, uint64(k))).Uint64() },
		"few hashes":        func(k int) uint64 { return uint64(k % 7) },
		"one hash":          func(int) uint64 { return 42 },
		"that differ late":  func(k int) uint64 { return uint64(k) << 56 },
		"that differ early": func(k int) uint64 { return uint64(k) },
	} {
		t.Run(name, func(t *testing.T) {
			draw := rand.New(rand.NewPCG(7, 7))
			var now, then trie[int, int]
			model, modelThen := map[int]int{}, map[int]int{}
			o := new(owner)
			for step := range 3_000 {
				if step%7 == 0 || step == 1_501 { // it is given up from time to time, and where others read
					o = new(owner)
				}
				k := draw.IntN(200)
				if draw.IntN(2) == 0 {
					now, model[k] = now.with(o, hash(k), k, step), step
				} else {
					now = now.without(o, hash(k), k)
					delete(model, k)
				}
				if step == 1_500 {
					then = now
					for k, v := range model {
						modelThen[k] = v
					}
				}
			}
			requireSame(t, now, model, hash)
			requireSame(t, then, modelThen, hash)
			o = new(owner)
			for k := range 200 {
				now = now.without(o, hash(k), k)
			}
			requireSame(t, then, modelThen, hash)
			if now.root != nil || now.size != 0 {
				t.Errorf("an empty trie holds %+v", now)
			}
		})
	}
}

func requireSame(t *testing.T, got trie[int, int], want map[int]int, hash func(int) uint64) {
	t.Helper()
	if got.size != len(want) {
		t.Errorf("it says it has %d entries, not %d", got.size, len(want))
	}
	for k := range 200 {
		v, there := got.get(hash(k), k)
		if w, is := want[k]; v != w || there != is {
			t.Errorf("%d: got %d, %v, want %d, %v", k, v, there, w, is)
		}
	}
}
