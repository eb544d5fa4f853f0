package node

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// What one write through the admin API of a server costs, client included: a
// Service of about 512 bytes, from 64 callers at once.
func BenchmarkApply(b *testing.B) {
	dir := b.TempDir()
	run(b, serverConfig(b, dir, "127.0.0.1:0")).ready()
	api := adminAPI(b, dir)
	var next atomic.Uint64
	before := processorTime()
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := next.Add(1)
			if _, err := api.Apply(b.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{sized(n)}}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(processorTime()-before)/1e3/float64(b.N), "cpu-µs/op")
}

// sized is one of 1,000 services; what it holds differs from call to call.
func sized(n uint64) *weirv1.Resource {
	return resource.Wrap(&weirv1.Service{
		Metadata: &weirv1.Metadata{Name: fmt.Sprintf("s%d", n%1000), Annotations: map[string]string{"note": fmt.Sprint(n, strings.Repeat("x", 400))}},
		Spec:     &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: "127.0.0.1:9000"}}},
	})
}

func processorTime() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
