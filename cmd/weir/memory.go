package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// spareHeap is how much garbage may gather before it is collected. By itself the
// runtime allows as much as is in use, which in a server that holds little is a
// few megabytes: under load it would collect them every few milliseconds, for a
// tenth of its processor time. One that holds more than this notices nothing.
const spareHeap = 64 << 20

// spareMemory lets garbage gather for as long as the process lasts. GOGC set by
// whoever starts it has the last word.
func spareMemory() {
	if os.Getenv("GOGC") == "" {
		pace(new(cycle))
	}
}

// cycle is garbage whose collection tells of a collection.
type cycle struct{ _ *cycle }

// pace sets when the next collection begins, now and after each one.
func pace(c *cycle) {
	debug.SetGCPercent(percentFor(liveHeap()))
	runtime.SetFinalizer(c, func(*cycle) { pace(new(cycle)) })
}

func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return spareHeap
	}
	return sample[0].Value.Uint64()
}

const (
	usualPercent = 100
	// mostPercent bounds what may gather before the first collection has told how
	// much is in use.
	mostPercent = 1000
)

// percentFor is the GOGC that allows for spareHeap where so much is in use.
func percentFor(live uint64) int {
	return int(min(max(spareHeap*100/max(live, 1), usualPercent), mostPercent))
}
