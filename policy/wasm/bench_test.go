package wasm

import (
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// BenchmarkHeaderPolicy is a whole exchange through a guest made by stock Go:
// six callbacks, a field read, two set.
func BenchmarkHeaderPolicy(b *testing.B) {
	f := newFixture(b, Config{})
	for _, bench := range []struct{ name, config string }{
		{"whole", ""},                   // all callbacks are made
		{"request-only", `"phases 17"`}, // the guest has code for the request's head alone
		{"request+response", `"phases 5"`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p := f.make(spec(bench.config))
			chain := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{})
			x := &exchange.Exchange{}
			one := func() { exchangeOnce(b, chain, x) }
			one()
			b.ReportAllocs()
			before := p.Status().Fuel
			for b.Loop() {
				one()
			}
			b.ReportMetric(float64(p.Status().Fuel-before)/float64(b.N), "fuel/op")
		})
	}
}

// BenchmarkNoPolicy is what the benchmark itself costs.
func BenchmarkNoPolicy(b *testing.B) {
	x := &exchange.Exchange{}
	for b.Loop() {
		exchangeOnce(b, nil, x)
	}
}

func BenchmarkHeaderPolicyParallel(b *testing.B) {
	f := newFixture(b, Config{})
	chain := policy.NewChain([]policy.Policy{f.make(spec(""))}, policy.ChainConfig{})
	b.RunParallel(func(pb *testing.PB) {
		x := &exchange.Exchange{}
		for pb.Next() {
			exchangeOnce(b, chain, x)
		}
	})
}

var (
	method, scheme   = []byte("GET"), []byte("http")
	authority, path  = []byte("shop.example"), []byte("/books")
	nameIn, valueIn  = []byte("X-In"), []byte("hello")
	nameAny, anyText = []byte("Accept"), []byte("*/*")
)

func exchangeOnce(t testing.TB, chain *policy.Chain, x *exchange.Exchange) {
	x.Reset()
	r := &x.Request
	r.Method, r.Scheme, r.Authority, r.Path = method, scheme, authority, path
	r.Fields.AddParsed(nameAny, anyText)
	r.Fields.AddParsed(nameIn, valueIn)
	run := chain.Begin(x)
	if _, err := run.Request(); err != nil {
		t.Fatal(err)
	}
	x.Response.Status = 200
	x.Response.Fields.AddParsed(nameAny, anyText)
	if err := run.Response(); err != nil {
		t.Fatal(err)
	}
	run.Close()
}

func TestAWarmPolicyDoesNotAllocate(t *testing.T) {
	f := newFixture(t, Config{})
	chain := policy.NewChain([]policy.Policy{f.make(spec(""))}, policy.ChainConfig{})
	x := &exchange.Exchange{}
	for range 10 {
		exchangeOnce(t, chain, x)
	}
	if n := testing.AllocsPerRun(200, func() { exchangeOnce(t, chain, x) }); n > 0 && !raceDetector { // under it pools forget on purpose
		t.Errorf("%v allocations", n)
	}
}
