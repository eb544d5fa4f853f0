package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Measurement is what a plugin costs on this machine; fuel is the same on all.
type Measurement struct {
	// Compile is how long the module took to be checked, rewritten and compiled,
	// Start to make a VM of it and configure that.
	Compile time.Duration `json:"compileNanos"`
	Start   time.Duration `json:"startNanos"`
	// MemoryBytes is the linear memory of one VM, when it had served.
	MemoryBytes uint64 `json:"memoryBytes"`
	Cases       []Cost `json:"cases"`
}

// Cost is what a case's exchange costs.
type Cost struct {
	Name string `json:"name"`
	// Time of one exchange beyond what it takes without the plugin: the median,
	// the least and the most of all rounds.
	Time  time.Duration `json:"nanos"`
	Least time.Duration `json:"leastNanos"`
	Most  time.Duration `json:"mostNanos"`
	// Fuel of one exchange, the median.
	Fuel uint64 `json:"fuel"`
	// Exchanges that were measured.
	Exchanges int `json:"exchanges"`
}

// How much is measured: a warm-up, and rounds, each long enough for the clock.
const (
	warmUp     = 200 * time.Millisecond
	rounds     = 21
	roundTime  = 15 * time.Millisecond
	startTries = 5
)

// Bench measures the plugin with the exchange of each case. What a case expects
// is not looked at, except that one which fails costs nothing that is worth
// knowing.
func (r *Runner) Bench(ctx context.Context, cases []Case) (m Measurement, err error) {
	if cases, err = exchangesOf(cases); err != nil {
		return m, err
	}
	began := time.Now()
	first, err := r.make(ctx, cases[0], repeated(&cases[0]))
	if err != nil {
		return m, fmt.Errorf("measure plugin: %w", err)
	}
	defer first.Release() // what is compiled serves all that follow
	m.Compile = time.Since(began)
	if m.Start, err = r.benchStart(ctx, cases[0]); err != nil {
		return m, fmt.Errorf("measure plugin: %w", err)
	}
	m.Compile = max(0, m.Compile-m.Start)
	for _, c := range cases {
		cost, memory, err := r.benchCase(ctx, c)
		if err != nil {
			return m, fmt.Errorf("measure case %q: %w", c.Name, err)
		}
		m.MemoryBytes = max(m.MemoryBytes, memory)
		m.Cases = append(m.Cases, cost)
	}
	return m, nil
}

// benchStart measures starts of a module that is compiled.
func (r *Runner) benchStart(ctx context.Context, c Case) (time.Duration, error) {
	var starts []time.Duration
	for range startTries {
		began := time.Now()
		p, err := r.make(ctx, c, repeated(&c))
		if err != nil {
			return 0, err
		}
		starts = append(starts, time.Since(began))
		p.Release()
	}
	return median(starts), nil
}

func (r *Runner) benchCase(ctx context.Context, c Case) (cost Cost, memory uint64, err error) {
	p, err := r.make(ctx, c, repeated(&c))
	if err != nil {
		return cost, 0, err
	}
	defer p.Release()
	o := &observed{Policy: p}
	with := &loop{of: &c, chain: policy.NewChain([]policy.Policy{o}, policy.ChainConfig{})}
	without := &loop{of: &c}
	if _, err := with.run(ctx, warmUp); err != nil {
		return cost, 0, err
	}
	if _, err := without.run(ctx, warmUp/4); err != nil {
		return cost, 0, err
	}
	with.n = 0
	var times, bare []time.Duration
	var fuels []uint64
	for range rounds {
		dear, err := with.run(ctx, roundTime)
		if err != nil {
			return cost, 0, err
		}
		cheap, err := without.run(ctx, roundTime/4)
		if err != nil {
			return cost, 0, err
		}
		times, bare, fuels = append(times, dear), append(bare, cheap), append(fuels, o.fuel)
	}
	for i, without := 0, median(bare); i < len(times); i++ {
		times[i] = max(0, times[i]-without)
	}
	slices.Sort(fuels)
	cost = Cost{Name: c.Name, Time: median(times), Least: slices.Min(times), Most: slices.Max(times), Fuel: fuels[len(fuels)/2], Exchanges: with.n}
	return cost, r.memoryPerVM(), nil
}

// memoryPerVM is the memory of the VM that has grown most.
func (r *Runner) memoryPerVM() (most uint64) {
	for _, s := range r.host.Status() {
		if s.VMs > 0 {
			most = max(most, s.MemoryBytes/uint64(s.VMs))
		}
	}
	return most
}

// loop has the exchange of a case happen again and again, in the same memory.
type loop struct {
	of    *Case
	chain *policy.Chain // nil: without the plugin
	x     exchange.Exchange
	n     int
}

// run goes on for about so long, and says how long one exchange took.
func (l *loop) run(ctx context.Context, long time.Duration) (time.Duration, error) {
	const batch = 16 // between two looks at the clock
	began, n := time.Now(), 0
	for {
		for range batch {
			if err := l.once(); err != nil {
				return 0, err
			}
		}
		n += batch
		if took := time.Since(began); took >= long {
			l.n += n
			return took / time.Duration(n), ctx.Err()
		}
	}
}

func (l *loop) once() error {
	x := &l.x
	x.Reset()
	fill(x, l.of, l.of.Time)
	run := l.chain.Begin(x)
	defer run.Close()
	outcome, err := run.Request()
	if err == nil && outcome == policy.Proceed {
		if err = drain(x.Request.Body); err == nil {
			l.of.Response.answer(x)
		}
	}
	if err == nil || errors.Is(err, policy.ErrAnswered) {
		err = run.Response()
	}
	if err == nil {
		err = drain(x.Response.Body)
	}
	return err
}

func drain(b exchange.Body) error {
	for b != nil {
		if _, err := b.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func median(times []time.Duration) time.Duration {
	times = slices.Sorted(slices.Values(times))
	return times[len(times)/2]
}
