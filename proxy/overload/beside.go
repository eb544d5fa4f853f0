//go:build !race

package overload

// beside is how much of the process's memory Go knows nothing of.
func beside(mapped int64) int64 { return max(0, anonymous()-mapped) }
