package plugintest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Options are what the plugin is run under.
type Options struct {
	// MemoryBytes and Fuel are a Plugin's limits; 0: the host's defaults.
	MemoryBytes, Fuel uint64
	// CacheDir keeps compiled code; empty: compile every time.
	CacheDir string
	// LogLevel is the least that is kept. A plugin may ask for it.
	LogLevel slog.Level
}

// Runner runs cases of one module, one after the other.
type Runner struct {
	host    *wasm.Host
	options Options
	digest  string
	clock   atomic.Int64 // Unix nanoseconds
	journal *journal
	cases   int
	// services are those that are being asked.
	services atomic.Pointer[services]
}

// NewRunner makes a runner; nothing is compiled yet.
func NewRunner(module []byte, options Options) (*Runner, error) {
	sum := sha256.Sum256(module)
	r := &Runner{options: options, digest: "sha256:" + hex.EncodeToString(sum[:]), journal: &journal{level: options.LogLevel}}
	host, err := wasm.NewHost(wasm.Config{
		Modules:  func(context.Context, string) ([]byte, error) { return module, nil },
		CacheDir: options.CacheDir,
		Logger:   slog.New(r.journal),
		LogLines: 10_000, ManualTicks: true,
		Clock:  func() time.Time { return time.Unix(0, r.clock.Load()) },
		Wait:   r.wait,
		Random: func() io.Reader { return rand.NewChaCha8([32]byte{}) },
	})
	if err != nil {
		return nil, fmt.Errorf("run cases: %w", err)
	}
	r.host = host
	r.clock.Store(defaultTime.UnixNano()) // the host began at 0: no runtime starts at its clocks' beginning
	return r, nil
}

// wait is how a plugin waits: time passes when nothing else can happen.
func (r *Runner) wait(_ context.Context, d time.Duration, changed <-chan struct{}) {
	if services := r.services.Load(); services != nil {
		services.settle()
	}
	select {
	case <-changed:
	default:
		r.clock.Add(int64(d))
	}
}

// Close gives up what was compiled.
func (r *Runner) Close() error { return r.host.Close() }

// Result is what came of a case.
type Result struct {
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
	OK   bool   `json:"ok"`
	// Problems are what is not as it was expected; each may have several lines.
	Problems []string `json:"problems,omitempty"`
	Verdict  Verdict  `json:"verdict"`
	// Error is why the plugin failed, or refused its configuration.
	Error string `json:"error,omitempty"`
	// Stack is where it trapped, innermost first.
	Stack []string `json:"stack,omitempty"`
	// Fuel is what the last exchange burned, MostFuel the most that one did.
	Fuel     uint64 `json:"fuel"`
	MostFuel uint64 `json:"mostFuel"`
	// Log is what was logged, a level and a text each.
	Log []string `json:"log,omitempty"`

	wrong  int // problems that are not of fuel
	expect Expectation
	edit   edit
}

// golden says that the case's fuel is to be written down.
func (r *Result) golden() bool {
	e := r.expect
	return r.wrong == 0 && !e.Failing() && (e.MaxFuel == nil || e.Fuel != nil) && (e.Fuel == nil || *e.Fuel != r.Fuel)
}

// Run runs one case. The error is for what is wrong with the runner, not with the
// plugin.
func (r *Runner) Run(ctx context.Context, c Case) (Result, error) {
	result := Result{Name: c.Name, File: c.File, Line: c.Line, expect: c.Expect, edit: c.edit}
	r.clock.Store(c.Time.UnixNano())
	r.journal.reset()
	services := newServices(&c)
	r.services.Store(services)
	p, err := r.make(ctx, c, services)
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	last := seen{verdict: Refused, err: err}
	if err == nil {
		defer p.Release()
		services.settle() // what it has asked while it was configured
		if ticker, ok := p.(interface{ Tick() bool }); ok {
			for range c.Ticks {
				if !ticker.Tick() {
					result.problem("ticks: the plugin has not asked for any")
					break
				}
				services.settle()
			}
		}
		last = r.exchanges(ctx, p, c, services, &result)
		services.settle()
	}
	result.Verdict, result.Log = last.verdict, r.journal.lines()
	if last.err != nil {
		result.Error = last.err.Error()
		result.Stack = StackOf(last.err)
	}
	if err == nil {
		result.calls(&c, services)
	}
	result.judge(&c, &last)
	return result, nil
}

// exchanges has the case's exchange, or connection, happen as often as it says.
func (r *Runner) exchanges(ctx context.Context, p policy.Policy, c Case, services *services, result *Result) (last seen) {
	o := &observed{Policy: p}
	chain := policy.NewChain([]policy.Policy{o}, policy.ChainConfig{})
	for i := range c.Repeat {
		if ctx.Err() != nil {
			break
		}
		r.clock.Store(max(r.clock.Load(), c.Time.Add(time.Duration(i)*c.Every).UnixNano()))
		if c.Connection != nil {
			last, o.fuel = r.connect(ctx, p, &c, services, result)
		} else {
			last = o.perform(chain, &c)
		}
		result.Fuel, result.MostFuel = o.fuel, max(result.MostFuel, o.fuel)
		if last.err != nil {
			break
		}
	}
	return last
}

// make makes a policy that is the case's own, of a tenant that is, too.
func (r *Runner) make(ctx context.Context, c Case, services policy.Services) (policy.Policy, error) {
	r.cases++
	return r.host.Make(ctx, policy.Spec{
		Tenant: fmt.Sprintf("case-%d", r.cases), Name: "plugin", Plugin: cmp.Or(c.Plugin, defaultPlugin), Digest: r.digest, Config: string(c.Config),
		FailureMode: weirv1.PolicySpec_CLOSED, MemoryBytes: r.options.MemoryBytes, Fuel: r.options.Fuel,
		StopIteration: c.StopIteration,
	}, services)
}

// observed is a policy whose filters tell what they burned, and whether they
// answered.
type observed struct {
	policy.Policy
	fuel     uint64
	answered bool
}

// perform has an exchange happen, of which answered and fuel are then told.
func (o *observed) perform(chain *policy.Chain, c *Case) seen {
	o.answered, o.fuel = false, 0
	s := perform(chain, c)
	if o.answered && s.err == nil {
		s.verdict = Answered
	}
	return s
}

// NewFilter implements policy.Policy.
func (o *observed) NewFilter() policy.Filter { return &observer{o.Policy.NewFilter(), o} }

type observer struct {
	policy.Filter
	of *observed
}

// Close implements policy.Filter.
func (o *observer) Close(x *exchange.Exchange) {
	o.Filter.Close(x)
	noteFuel(&o.of.fuel, o.Filter)
}

// noteFuel notes what a filter has burned, if it tells.
func noteFuel(fuel *uint64, filter any) {
	if meter, ok := filter.(interface{ Burned() uint64 }); ok {
		*fuel = meter.Burned()
	}
}

func (o *observer) noted(v policy.Verdict, err error) (policy.Verdict, error) {
	o.of.answered = o.of.answered || v == policy.Respond
	return v, err
}

// OnRequest implements policy.Filter.
func (o *observer) OnRequest(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	return o.noted(o.Filter.OnRequest(x, end))
}

// OnRequestBody implements policy.Filter.
func (o *observer) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	return o.noted(o.Filter.OnRequestBody(x, chunk, end))
}

// OnResponse implements policy.Filter.
func (o *observer) OnResponse(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	return o.noted(o.Filter.OnResponse(x, end))
}

// OnResponseBody implements policy.Filter.
func (o *observer) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	return o.noted(o.Filter.OnResponseBody(x, chunk, end))
}

// seen is what an exchange came to.
type seen struct {
	verdict           Verdict
	err               error
	request, response message
}

// message is a head and a body as they came out.
type message struct {
	there                      bool
	method, scheme, host, path string
	status                     int
	fields                     []Field
	body                       string
}

// perform has one exchange happen, as a proxy does: the request goes through the
// chain, the service is asked while the body is pulled, the answer goes back.
func perform(chain *policy.Chain, c *Case) (s seen) {
	x := newExchange(c)
	run := chain.Begin(x)
	defer run.Close()
	s.verdict = Continued
	outcome, err := run.Request()
	if err == nil && outcome == policy.Proceed {
		s.request = requestOf(x)
		if s.request.body, err = readAll(x.Request.Body); err == nil {
			c.Response.answer(x)
		}
	}
	if err == nil || errors.Is(err, policy.ErrAnswered) {
		err = run.Response()
	}
	if err == nil {
		s.response = responseOf(x)
		s.response.body, err = readAll(x.Response.Body)
	}
	if err != nil {
		s.verdict, s.err = Failed, err
	}
	return s
}
