// Package canary has two versions of a plugin serve side by side, and judges the new
// one by the old one.
//
//	exchange ─▶ drawn: percent ─▶ canary ─▶ counted ─┐
//	                    rest ─▶ stable ─▶ counted ─┴▶ Judge ─▶ abort
//
// A [Trial] is one attempt with one canary. All policies that use the plugin share it:
// each is a [New] of two policies, of which an exchange gets one and keeps it. From the
// moment that a trial is aborted every exchange that begins gets the stable one.
//
// Who decides: a proxy for itself, with each bad end of an exchange of the canary's,
// for that needs nobody else and must not wait; the servers for all, by the sum of what
// the proxies report, for what is rare on each of them may be plain over all. Both by
// [Judge].
package canary

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Trial is one attempt with one canary.
type Trial struct {
	below          uint64 // a draw of 63 bits below it is the canary's
	draw           func() uint64
	canary, stable tally
	aborted        atomic.Pointer[string]
	onAbort        func(reason string)
}

// Config is what a trial needs. Only Percent is required.
type Config struct {
	// Percent of the exchanges are the canary's.
	Percent float64
	// OnAbort is told once why the trial is aborted.
	OnAbort func(reason string)
	// Draw returns 64 random bits. nil: those of math/rand/v2.
	Draw func() uint64
}

// NewTrial begins one.
func NewTrial(c Config) *Trial {
	if c.Draw == nil {
		c.Draw = rand.Uint64
	}
	if c.OnAbort == nil {
		c.OnAbort = func(string) {}
	}
	return &Trial{below: uint64(min(max(c.Percent, 0), 100) / 100 * (1 << 63)), draw: c.Draw, onAbort: c.OnAbort}
}

// Abort ends the trial, unless it is over.
func (t *Trial) Abort(reason string) {
	if t.aborted.CompareAndSwap(nil, &reason) {
		t.onAbort(reason)
	}
}

// Aborted is why the trial was; "" while it goes on.
func (t *Trial) Aborted() string {
	if reason := t.aborted.Load(); reason != nil {
		return *reason
	}
	return ""
}

// Counts are what both versions came to.
func (t *Trial) Counts() (canary, stable *weirv1.PluginCounts) {
	return t.canary.counts(), t.stable.counts()
}

func (t *Trial) pick() bool { return t.aborted.Load() == nil && t.draw()>>1 < t.below }

// judge is asked after an exchange of the canary's that went badly.
func (t *Trial) judge() {
	if t.aborted.Load() != nil {
		return
	}
	if reason := Judge(t.Counts()); reason != "" {
		t.Abort(reason)
	}
}

// tally is one version's, on a cache line of its own.
type tally struct {
	exchanges, failures, empty, errors, fuel atomic.Uint64
	_                                        [88]byte
}

func (t *tally) counts() *weirv1.PluginCounts {
	// An exchange is counted before how it went: so none is bad that is not there.
	c := &weirv1.PluginCounts{Failures: t.failures.Load(), OutOfFuel: t.empty.Load(), ServerErrors: t.errors.Load(), Fuel: t.fuel.Load()}
	c.Exchanges = t.exchanges.Load()
	return c
}

// Policy is two policies in the place of one.
type Policy struct {
	stable, canary policy.Policy
	trial          *Trial
}

var _ policy.Policy = (*Policy)(nil)

// New has exchanges go by one of two policies. Release gives up both.
func New(stable, canary policy.Policy, t *Trial) *Policy {
	return &Policy{stable: stable, canary: canary, trial: t}
}

// Spec implements policy.Policy: that of the stable version.
func (p *Policy) Spec() policy.Spec { return p.stable.Spec() }

// Phases implements policy.Policy: those that either wants.
func (p *Policy) Phases() policy.Phases { return p.stable.Phases() | p.canary.Phases() }

// Release implements policy.Policy.
func (p *Policy) Release() {
	p.stable.Release()
	p.canary.Release()
}

// NewFilter implements policy.Policy.
func (p *Policy) NewFilter() policy.Filter {
	f := &filter{trial: p.trial}
	f.sides[0] = newSide(p.stable, &p.trial.stable)
	f.sides[1] = newSide(p.canary, &p.trial.canary)
	return f
}

type side struct {
	policy.Filter
	phases policy.Phases
	tally  *tally
	meter  meter // nil: it tells nothing
}

// meter is a filter that tells of the exchange that it has closed.
type meter interface {
	Burned() uint64 // fuel
	Failed() bool
}

func newSide(p policy.Policy, t *tally) side {
	s := side{Filter: p.NewFilter(), phases: p.Phases(), tally: t}
	s.meter, _ = s.Filter.(meter)
	return s
}

// filter takes an exchange through one of the two.
type filter struct {
	trial  *Trial
	sides  [2]side
	side   *side
	failed bool
	waited bool // in vain, for a service
}

var errAtEnd = errors.New("it has failed when the exchange was over")

// Begin implements policy.Filter.
func (f *filter) Begin(x *exchange.Exchange) error {
	f.side, f.failed, f.waited = &f.sides[0], false, false
	if f.trial.pick() {
		f.side = &f.sides[1]
	}
	f.side.tally.exchanges.Add(1)
	err := f.side.Begin(x)
	f.note(err)
	return err
}

// OnRequest implements policy.Filter. The side may want less than both do together.
func (f *filter) OnRequest(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	if f.side.phases&policy.RequestHead == 0 {
		return policy.Continue, nil
	}
	v, err := f.side.OnRequest(x, end)
	f.note(err)
	return f.head(v, policy.RequestBody), err
}

// OnRequestBody implements policy.Filter.
func (f *filter) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	if f.side.phases&policy.RequestBody == 0 {
		return policy.Continue, nil
	}
	v, err := f.side.OnRequestBody(x, chunk, end)
	f.note(err)
	return v, err
}

// OnResponse implements policy.Filter.
func (f *filter) OnResponse(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	if f.side.phases&policy.ResponseHead == 0 {
		return policy.Continue, nil
	}
	v, err := f.side.OnResponse(x, end)
	f.note(err)
	return f.head(v, policy.ResponseBody), err
}

// OnResponseBody implements policy.Filter.
func (f *filter) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	if f.side.phases&policy.ResponseBody == 0 {
		return policy.Continue, nil
	}
	v, err := f.side.OnResponseBody(x, chunk, end)
	f.note(err)
	return v, err
}

// Close implements policy.Filter.
func (f *filter) Close(x *exchange.Exchange) {
	f.side.Close(x)
	if m := f.side.meter; m != nil {
		f.side.tally.fuel.Add(m.Burned())
		if m.Failed() && !f.waited {
			f.note(errAtEnd)
		}
	}
	if f.failed || x.Response.Status < 500 {
		return
	}
	f.side.tally.errors.Add(1)
	f.bad()
}

// head is the verdict on a head: who wants no body holds nothing back for it.
func (f *filter) head(v policy.Verdict, body policy.Phases) policy.Verdict {
	if v == policy.Hold && f.side.phases&body == 0 {
		return policy.Continue
	}
	return v
}

// note counts a failure. Who has waited in vain for a service has not failed.
func (f *filter) note(err error) {
	switch {
	case err == nil || f.failed:
		return
	case errors.Is(err, policy.ErrWaited):
		f.waited = true
		return
	}
	f.failed = true
	if errors.Is(err, policy.ErrOutOfFuel) {
		f.side.tally.empty.Add(1)
	}
	f.side.tally.failures.Add(1)
	f.bad()
}

func (f *filter) bad() {
	if f.side == &f.sides[1] {
		f.trial.judge()
	}
}
