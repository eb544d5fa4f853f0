package fuel

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
)

// BenchmarkStockGo shows what counting costs the guest.
func BenchmarkStockGo(b *testing.B) {
	guest := buildGuest(b)
	e := newEngine(b, wazero.NewRuntimeConfigCompiler())
	for _, module := range []struct {
		name  string
		bytes []byte
	}{{"plain", guest}, {"metered", rewrite(b, guest)}} {
		i := e.start(module.bytes)
		for _, call := range []struct {
			name string
			n    uint64
		}{{"hash", 1000}, {"text", 20}} {
			b.Run(call.name+"/"+module.name, func(b *testing.B) {
				f, stack := i.mod.ExportedFunction(call.name), []uint64{0}
				for b.Loop() {
					i.fill(1 << 40)
					stack[0] = call.n
					if err := f.CallWithStack(context.Background(), stack); err != nil {
						b.Fatal(err)
					}
				}
				if i.tank != nil {
					b.ReportMetric(float64(1<<40-int64(i.tank.Get())), "fuel/op")
				}
			})
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	guest := buildGuest(b)
	b.SetBytes(int64(len(guest)))
	for b.Loop() {
		rewrite(b, guest)
	}
}
