//go:build !linux

package meter

import "os"

// reserve gives a new file its size and its blocks.
func reserve(f *os.File, size int64) error { return fill(f, size) }
