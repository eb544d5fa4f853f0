package testcluster

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// BenchmarkPropose is the whole way of a write on one member: encoded,
// gathered, synced to the log, decided and stored. Writes a second in one run
// on two cores that had other work beside it (load 4; a sync of the disk took
// 0.2 to 1 ms); they swing by a half from run to run:
//
//	callers                    1       16       64      256
//	a value of 512 bytes   2,000    9,200   25,300   34,600
//	a service              1,600    9,200   15,400   16,300
func BenchmarkPropose(b *testing.B) {
	value := []byte(strings.Repeat("x", 512))
	commands := map[string]func(i int64) *weirv1.Command{
		"value": func(i int64) *weirv1.Command {
			return &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{
				Table: "bench", Key: fmt.Sprint(i % 10_000), Value: value,
			}}}
		},
		"service": func(i int64) *weirv1.Command {
			return &weirv1.Command{Action: &weirv1.Command_Transact{Transact: &weirv1.Transact{
				Puts: []*weirv1.Resource{service(fmt.Sprint("s", i%10_000), fmt.Sprint("v", i))},
			}}}
		},
	}
	for _, kind := range []string{"value", "service"} {
		for _, callers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", kind, callers), func(b *testing.B) {
				m := Start(b)
				var next atomic.Int64
				run(b, callers, func() error {
					_, err := m.Node.Propose(b.Context(), commands[kind](next.Add(1)))
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			})
		}
	}
}

// BenchmarkReadBarrier is what a linearizable read costs beyond the look-up:
// 5 µs alone, 3 µs among 64.
func BenchmarkReadBarrier(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			m := Start(b)
			run(b, callers, func() error { return m.Node.ReadBarrier(b.Context()) })
		})
	}
}

// run calls f b.N times from so many goroutines.
func run(b *testing.B, callers int, f func() error) {
	b.Helper()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}
