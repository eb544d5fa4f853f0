package sdk_test

import (
	"strings"
	"testing"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

type waiter struct {
	do      func(w *waiter, r *sdk.Request) sdk.Action
	strikes int
}

func (w *waiter) OnRequest(r *sdk.Request) sdk.Action { return w.do(w, r) }

// TestWaiting: an exchange waits for a time, or for what another finds out.
func TestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *waiter, r *sdk.Request) sdk.Action
		want string
		took time.Duration
	}{
		"for a time": {
			do: func(_ *waiter, r *sdk.Request) sdk.Action {
				return r.Sleep(3*time.Second, func() sdk.Action {
					r.Header.Set("x-got", "slept")
					return sdk.Continue
				})
			},
			want: "slept", took: 3 * time.Second,
		},
		"for a value that comes": {
			do: func(_ *waiter, r *sdk.Request) sdk.Action {
				r.Detach(func() {
					_ = sdk.Send(sdk.Call{Service: "users", Path: "/me"}, func(reply *sdk.Reply) {
						_ = sdk.SetShared("k", []byte(reply.Header.Get("x-up")), sdk.Always)
					})
				})
				return r.WaitShared("k", sdk.Absent, time.Second, func(changed bool) sdk.Action {
					value, _, _ := sdk.GetShared("k")
					if changed {
						r.Header.Set("x-got", string(value))
					}
					return sdk.Continue
				})
			},
			want: "GET users/me",
		},
		"for a value that does not come": {
			do: func(_ *waiter, r *sdk.Request) sdk.Action {
				return r.WaitShared("k", sdk.Absent, time.Second, func(changed bool) sdk.Action {
					if !changed {
						r.Header.Set("x-got", "nothing")
					}
					return sdk.Continue
				})
			},
			want: "nothing", took: time.Second,
		},
		"for a value that is there": {
			do: func(_ *waiter, r *sdk.Request) sdk.Action {
				_ = sdk.SetShared("k", []byte("v"), sdk.Always)
				return r.WaitShared("k", sdk.Absent, time.Second, func(changed bool) sdk.Action {
					if changed {
						r.Header.Set("x-got", "at once")
					}
					return sdk.Continue
				})
			},
			want: "at once",
		},
		"not at all": {
			do: func(w *waiter, r *sdk.Request) sdk.Action {
				for range 2 {
					if err := sdk.After(time.Second, func() { w.strikes++ }); err != nil {
						t.Error(err)
					}
				}
				r.Header.Set("x-got", strings.Repeat("x", w.strikes)+"-")
				return sdk.Continue
			},
			want: "-", took: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &waiter{do: c.do}
			p := policytest.Start(t, func(struct{}) (sdk.Handler, error) { return w, nil }, "")
			p.Host().Service("users", users)
			var before, after time.Time
			began := func() (at time.Time) {
				w.do = func(_ *waiter, _ *sdk.Request) sdk.Action { at = sdk.Now(); return sdk.Continue }
				p.Do(policytest.Exchange{})
				return at
			}
			before = began()
			w.do = c.do
			x := p.Do(policytest.Exchange{})
			after = began()
			if got := x.Request.Header.Get("x-got"); got != c.want || after.Sub(before) != c.took {
				t.Errorf("x-got is %q after %v, want %q after %v", got, after.Sub(before), c.want, c.took)
			}
			if name == "not at all" && w.strikes != 2 {
				t.Errorf("%d strikes", w.strikes)
			}
		})
	}
}
