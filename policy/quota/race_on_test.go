//go:build race

package quota

// raceEnabled: the race detector makes sync.Pool forget at random, so that
// what it hands out cannot be counted.
const raceEnabled = true
