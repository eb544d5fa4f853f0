//go:build !race

package nodeport

const raceEnabled = false
