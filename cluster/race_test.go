//go:build race

package cluster

// seedsByDefault is few where everything takes ten times as long.
const seedsByDefault = 5
