package main

import "testing"

func TestGarbageMayGatherWhereLittleIsInUse(t *testing.T) {
	for live, want := range map[uint64]int{
		0:         mostPercent, // nobody knows yet
		1 << 20:   mostPercent,
		16 << 20:  400,
		64 << 20:  100,
		640 << 20: 100, // as the runtime does by itself
	} {
		if got := percentFor(live); got != want {
			t.Errorf("with %d MB in use: %d %%, want %d %%", live>>20, got, want)
		}
	}
}
