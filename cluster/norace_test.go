//go:build !race

package cluster

const seedsByDefault = 20
