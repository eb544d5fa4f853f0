package wal

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
)

// One batch of entries of 512 bytes, written and synced.
func BenchmarkStoreLogs(b *testing.B) {
	for _, size := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(size, " entries"), func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			data := make([]byte, 512)
			batch := make([]*raft.Log, size)
			for i := range batch {
				batch[i] = &raft.Log{Term: 1, Data: data}
			}
			next := uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				for _, e := range batch {
					e.Index = next
					next++
				}
				if err := l.StoreLogs(batch); err != nil {
					b.Fatal(err)
				}
				if next%8192 == 1 {
					if err := l.DeleteRange(1, next-4096); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
