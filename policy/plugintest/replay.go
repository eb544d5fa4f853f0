package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/weirmesh/weir/policy"
)

// Version is one of two that are compared: a module, with the configuration that
// its policy has.
type Version struct {
	Runner *Runner
	// Plugin is the name that the module was pushed under; empty: none that it knows.
	Plugin string
	Config json.RawMessage
}

// Difference is an exchange that two versions of a plugin do not treat alike.
type Difference struct {
	Name string `json:"name"`
	// Entry is which exchange of the capture it is, from 0.
	Entry int `json:"entry"`
	// Changes say what is different: what the new version does, and the old did.
	Changes []string `json:"changes"`
}

// Replayed is what a capture showed of two versions.
type Replayed struct {
	Exchanges   int          `json:"exchanges"`
	Differences []Difference `json:"differences"`
	// OldFuel and NewFuel are what all exchanges burned.
	OldFuel uint64 `json:"oldFuel"`
	NewFuel uint64 `json:"newFuel"`
}

// Replay has two versions of a plugin take part in the same exchanges, in their
// order, and tells where they differ: in the verdict, in what the service or the
// client gets, or in fuel by more than tolerance (0.1 is a tenth; negative: fuel is
// not compared). Unlike cases, the exchanges share a policy, and a clock that shows
// when each was captured: limits count, and what was learnt is known.
func Replay(ctx context.Context, before, after Version, cases []Case, tolerance float64) (r Replayed, err error) {
	a, err := before.start(ctx, cases[0].Time)
	if err != nil {
		return r, fmt.Errorf("replay: the old version: %w", err)
	}
	defer a.policy.Release()
	b, err := after.start(ctx, cases[0].Time)
	if err != nil {
		return r, fmt.Errorf("replay: the new version: %w", err)
	}
	defer b.policy.Release()
	for i := range cases {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		c := &cases[i]
		was, is := a.perform(c), b.perform(c)
		r.Exchanges++
		r.OldFuel += was.fuel
		r.NewFuel += is.fuel
		if changes := compare(&was, &is, tolerance); len(changes) > 0 {
			r.Differences = append(r.Differences, Difference{c.Name, c.Line, changes})
		}
	}
	return r, nil
}

// replaying is a version at work.
type replaying struct {
	runner *Runner
	policy policy.Policy
	of     *observed
	chain  *policy.Chain
}

func (v Version) start(ctx context.Context, now time.Time) (*replaying, error) {
	v.Runner.clock.Store(now.UnixNano())
	p, err := v.Runner.make(ctx, Case{Plugin: v.Plugin, Config: v.Config}, nil)
	if err != nil {
		return nil, err
	}
	o := &observed{Policy: p}
	return &replaying{v.Runner, p, o, policy.NewChain([]policy.Policy{o}, policy.ChainConfig{})}, nil
}

// outcome is what became of an exchange, and what that cost.
type outcome struct {
	seen
	fuel uint64
}

func (p *replaying) perform(c *Case) outcome {
	p.runner.clock.Store(c.Time.UnixNano())
	s := p.of.perform(p.chain, c)
	return outcome{s, p.of.fuel}
}

// compare names what is different.
func compare(was, is *outcome, tolerance float64) (changes []string) {
	note := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	if was.verdict != is.verdict {
		note("verdict: %s, was %s%s", is.verdict, was.verdict, because(cmp.Or(is.err, was.err)))
	} else if is.err != nil && is.err.Error() != was.err.Error() {
		note("error: %s, was %s", is.err, was.err)
	}
	if was.err == nil && is.err == nil {
		changes = append(changes, compareMessages("request", &was.request, &is.request)...)
		changes = append(changes, compareMessages("response", &was.response, &is.response)...)
	}
	if apart := float64(is.fuel) - float64(was.fuel); tolerance >= 0 && max(apart, -apart) > tolerance*float64(was.fuel) {
		note("fuel: %d, was %d%s", is.fuel, was.fuel, share(is.fuel, was.fuel))
	}
	return changes
}

func compareMessages(what string, was, is *message) (changes []string) {
	note := func(format string, args ...any) {
		changes = append(changes, what+" "+fmt.Sprintf(format, args...))
	}
	if !was.there || !is.there {
		return nil // the verdict says so
	}
	for _, part := range []struct{ name, was, is string }{
		{"method", was.method, is.method}, {"scheme", was.scheme, is.scheme}, {"host", was.host, is.host}, {"path", was.path, is.path},
	} {
		if part.was != part.is {
			note("%s: %q, was %q", part.name, part.is, part.was)
		}
	}
	if was.status != is.status {
		note("status: %d, was %d", is.status, was.status)
	}
	compared := map[string]bool{"content-length": true, "transfer-encoding": true}
	for _, f := range slices.Concat(is.fields, was.fields) {
		if compared[f.Name] {
			continue
		}
		compared[f.Name] = true
		if now, before := valuesOf(is.fields, f.Name), valuesOf(was.fields, f.Name); !slices.Equal(now, before) {
			note("header %s: %s, was %s", f.Name, list(now), list(before))
		}
	}
	if was.body != is.body {
		note("body: %s", difference(is.body, was.body, "was"))
	}
	return changes
}
