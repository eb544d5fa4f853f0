package sdk_test

import (
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// knowing is a host that knows light exchanges.
type knowing struct{ abi.Host }

func (knowing) Foreign(_ string, args []byte) ([]byte, abi.Status)            { return args, abi.OK }
func (knowing) Respond(uint32, string, []byte, []byte) abi.Status             { return abi.OK }
func (knowing) GetHeader(abi.MapType, string) (string, abi.Status)            { return "", abi.NotFound }
func (knowing) GetBuffer(abi.BufferType, uint32, uint32) ([]byte, abi.Status) { return nil, abi.OK }

// unheard is a handler that is not told of an exchange's end.
type unheard struct{ p *probe }

func (u unheard) OnRequest(r *sdk.Request) sdk.Action       { return u.p.OnRequest(r) }
func (u unheard) OnRequestBody(r *sdk.Request) sdk.Action   { return u.p.OnRequestBody(r) }
func (u unheard) OnResponse(r *sdk.Response) sdk.Action     { return u.p.OnResponse(r) }
func (u unheard) OnResponseBody(r *sdk.Response) sdk.Action { return u.p.OnResponseBody(r) }

const light = sdk.Action(abi.ActionLight)

// sandbox runs f in a sandbox with one policy.
func sandbox(t *testing.T, h abi.Host, handler sdk.Handler, f func(vm *sdk.VM)) {
	t.Helper()
	vm := sdk.NewVM(sdk.Define(func(struct{}) (sdk.Handler, error) { return handler, nil }))
	abi.With(h, func() {
		vm.OnContextCreate(1, 0)
		if !vm.OnConfigure(1, 0) {
			t.Fatal("not configured")
		}
		f(vm)
	})
}

func want(t *testing.T, what string, got, want sdk.Action) {
	t.Helper()
	if got != want {
		t.Errorf("%s: action %d, want %d", what, got, want)
	}
}

// TestAnExchangeWithoutStateIsLight: the host has made no context, and gives it
// another number each time.
func TestAnExchangeWithoutStateIsLight(t *testing.T) {
	sandbox(t, knowing{}, unheard{&probe{}}, func(vm *sdk.VM) {
		for id := uint32(2); id < 10; id += 4 {
			want(t, "request", vm.OnRequestHeaders(id, false), sdk.Continue|light)
			want(t, "request body", vm.OnRequestBody(id+1, 5, true), sdk.Continue|light)
			want(t, "response", vm.OnResponseHeaders(id+2, false), sdk.Continue|light)
			want(t, "response body", vm.OnResponseBody(id+3, 5, true), sdk.Continue|light)
		}
	})
}

func TestAnExchangeWithStateIsKept(t *testing.T) {
	seen := ""
	handler := unheard{&probe{
		onRequest: func(r *sdk.Request) sdk.Action { r.State = "mine"; return sdk.Continue },
		onResponse: func(r *sdk.Response) sdk.Action {
			seen, _ = r.State.(string)
			if r.End {
				r.State = nil // it might have been left: this is the end
			}
			return sdk.Continue
		},
		onResponseBody: func(r *sdk.Response) sdk.Action { seen, _ = r.State.(string); return sdk.Continue },
	}}
	sandbox(t, knowing{}, handler, func(vm *sdk.VM) {
		want(t, "request", vm.OnRequestHeaders(2, true), sdk.Continue)
		// Others come and go meanwhile.
		want(t, "another's request", vm.OnRequestHeaders(3, true), sdk.Continue)
		want(t, "a stranger's response", vm.OnResponseHeaders(4, true), sdk.Continue|light)
		if seen != "" {
			t.Errorf("a stranger sees %q", seen)
		}
		want(t, "response", vm.OnResponseHeaders(2, false), sdk.Continue)
		want(t, "response body", vm.OnResponseBody(2, 1, false), sdk.Continue)
		if seen != "mine" {
			t.Errorf("the body sees %q", seen)
		}
		want(t, "end of the body", vm.OnResponseBody(2, 1, true), sdk.Continue|light)
		vm.OnDelete(3) // cut short
		want(t, "what is deleted is a stranger", vm.OnResponseHeaders(3, true), sdk.Continue|light)
		if seen != "" {
			t.Errorf("a stranger sees %q", seen)
		}
		want(t, "the policy is still there", vm.OnRequestHeaders(5, true), sdk.Continue)
	})
}

func TestStateThatIsDroppedMakesAnExchangeLight(t *testing.T) {
	handler := unheard{&probe{
		onRequest:     func(r *sdk.Request) sdk.Action { r.State = 1; return sdk.Continue },
		onRequestBody: func(r *sdk.Request) sdk.Action { r.State = nil; return sdk.Continue },
	}}
	sandbox(t, knowing{}, handler, func(vm *sdk.VM) {
		want(t, "request", vm.OnRequestHeaders(2, false), sdk.Continue)
		want(t, "request body", vm.OnRequestBody(2, 1, false), sdk.Continue|light)
		want(t, "response", vm.OnResponseHeaders(3, false), sdk.Continue|light)
	})
}

// TestAnExchangeThatHoldsIsKept: it goes on where it was.
func TestAnExchangeThatHoldsIsKept(t *testing.T) {
	action := sdk.Hold
	handler := unheard{&probe{
		onRequest:     func(*sdk.Request) sdk.Action { return sdk.Hold },
		onRequestBody: func(*sdk.Request) sdk.Action { return action },
	}}
	sandbox(t, knowing{}, handler, func(vm *sdk.VM) {
		want(t, "request", vm.OnRequestHeaders(2, false), sdk.Hold)
		want(t, "request body", vm.OnRequestBody(2, 1, false), sdk.Hold)
		action = sdk.Continue
		want(t, "the rest of it", vm.OnRequestBody(2, 2, true), sdk.Continue|light)
	})
}

// TestAnAnsweredExchangeIsOver: and the next one is not taken for it.
func TestAnAnsweredExchangeIsOver(t *testing.T) {
	for name, returned := range map[string]sdk.Action{"as told": sdk.Hold, "carelessly": sdk.Continue} {
		t.Run(name, func(t *testing.T) {
			answer, calls := true, 0
			handler := unheard{&probe{onRequest: func(r *sdk.Request) sdk.Action {
				calls++
				r.State = nil
				if !answer {
					return sdk.Continue
				}
				r.State = "not needed any more"
				r.Respond(403, nil, nil)
				return returned
			}}}
			sandbox(t, knowing{}, handler, func(vm *sdk.VM) {
				want(t, "answered", vm.OnRequestHeaders(2, false), returned|light)
				answer = false
				want(t, "the next", vm.OnRequestHeaders(3, false), sdk.Continue|light)
				if calls != 2 {
					t.Errorf("the handler was called %d times", calls)
				}
			})
		})
	}
}

func TestWhoMustBeToldOfTheEndHasNoLightExchanges(t *testing.T) {
	sandbox(t, silent{}, unheard{&probe{}}, func(vm *sdk.VM) {
		vm.OnContextCreate(2, 1)
		want(t, "a host that does not know them", vm.OnRequestHeaders(2, true), sdk.Continue)
	})
	ended := 0
	sandbox(t, knowing{}, &probe{onDone: func(*sdk.Exchange) { ended++ }}, func(vm *sdk.VM) {
		vm.OnContextCreate(2, 1)
		want(t, "a handler with OnDone", vm.OnRequestHeaders(2, true), sdk.Continue)
		vm.OnLog(2)
		vm.OnDelete(2)
	})
	if ended != 1 {
		t.Errorf("told %d times", ended)
	}
}

func TestALightExchangeCostsNoAllocation(t *testing.T) {
	sandbox(t, knowing{}, unheard{&probe{onRequest: func(r *sdk.Request) sdk.Action {
		if r.End {
			r.State = t // kept
		}
		return sdk.Continue
	}}}, func(vm *sdk.VM) {
		id := uint32(2)
		if got := testing.AllocsPerRun(1000, func() {
			vm.OnRequestHeaders(id, false)
			vm.OnResponseHeaders(id+1, true)
			vm.OnRequestHeaders(id+2, true)
			vm.OnResponseHeaders(id+2, true)
			id += 3
		}); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}
