//go:build race

package waf_test

// raceEnabled: the race detector makes everything many times slower.
const raceEnabled = true
