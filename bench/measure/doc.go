// Package measure is what comparisons have in common: programs that run as
// children and what they cost, latencies, and how often the disk was told to
// make things safe.
//
// A child is a process group of its own, is told to end when its parent dies,
// and prints to a file. So a comparison that is killed leaves nothing running.
package measure
