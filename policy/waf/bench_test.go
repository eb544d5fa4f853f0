package waf_test

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/waf"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// BenchmarkSmallRequest is what the firewall costs a browser's request.
func BenchmarkSmallRequest(b *testing.B) {
	p := newPolicy(b, waf.NewHost(waf.Config{}), "p", &weirv1.Firewall{})
	defer p.Release()
	chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
	x := new(exchange.Exchange)
	b.ReportAllocs()
	before := processorTime()
	for b.Loop() {
		x.Reset()
		x.ID, x.Protocol, x.Client = []byte("0123456789abcdef"), exchange.HTTP11, netip.MustParseAddrPort("192.0.2.1:4000")
		x.Request.Method, x.Request.Path, x.Request.Authority = []byte("GET"), []byte("/books/17?lang=en&sort=price"), []byte("shop.example")
		for name, value := range map[string]string{
			"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
			"Accept":     "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Encoding": "gzip, deflate, br", "Cookie": "session=5e1f3c2b",
		} {
			x.Request.Fields.Add([]byte(name), []byte(value))
		}
		run := chain.Begin(x)
		if outcome, err := run.Request(); outcome != policy.Proceed || err != nil {
			b.Fatal(outcome, err)
		}
		run.Close()
	}
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what the process has had, whatever else the machine does.
func processorTime() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
