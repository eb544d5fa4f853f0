package sdk_test

import (
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// silent is a host that is asked for nothing but foreign functions.
type silent struct{ abi.Host }

func (silent) Foreign(string, []byte) ([]byte, abi.Status) { return nil, abi.NotFound }

// TestManyExchangesAtOnce: a host may have any number of exchanges in a VM, of
// several policies, and end them in any order.
func TestManyExchangesAtOnce(t *testing.T) {
	const roots, each = 3, 200
	made := 0
	vm := sdk.NewVM(sdk.Define(func(struct{}) (sdk.Handler, error) {
		made++
		mine := made
		return &probe{
			onRequest: func(r *sdk.Request) sdk.Action { r.State = mine; return sdk.Continue },
			onResponse: func(r *sdk.Response) sdk.Action {
				if r.State != mine {
					t.Errorf("policy %d sees the state %v", mine, r.State)
				}
				return sdk.Hold
			},
		}, nil
	}))
	abi.With(silent{}, func() {
		for root := uint32(1); root <= roots; root++ {
			vm.OnContextCreate(root, 0)
			if !vm.OnConfigure(root, 0) {
				t.Fatal("not configured")
			}
		}
		for id := uint32(10); id < 10+each; id++ {
			vm.OnContextCreate(id, 1+id%roots)
			vm.OnRequestHeaders(id, true)
		}
		for id := uint32(10); id < 10+each; id += 2 {
			vm.OnDelete(id)
		}
		for id := uint32(10); id < 10+each; id++ {
			want := sdk.Hold
			if id%2 == 0 {
				want = sdk.Continue // It is over: nobody sees it.
			}
			if got := vm.OnResponseHeaders(id, true); got != want {
				t.Errorf("exchange %d: %v, want %v", id, got, want)
			}
		}
		vm.OnDelete(2)
		vm.OnContextCreate(1000, 2)
		if got := vm.OnResponseHeaders(1000, true); got != sdk.Continue {
			t.Errorf("a policy that is gone still holds: %v", got)
		}
	})
}

func TestAnExchangeCostsNoAllocation(t *testing.T) {
	vm := sdk.NewVM(sdk.Define(func(struct{}) (sdk.Handler, error) { return &probe{}, nil }))
	abi.With(silent{}, func() {
		vm.OnContextCreate(1, 0)
		if !vm.OnConfigure(1, 0) {
			t.Fatal("not configured")
		}
		id := uint32(2)
		if got := testing.AllocsPerRun(1000, func() {
			vm.OnContextCreate(id, 1)
			vm.OnRequestHeaders(id, false)
			vm.OnRequestBody(id, 1, true)
			vm.OnResponseHeaders(id, true)
			vm.OnLog(id)
			vm.OnDelete(id)
			id++
		}); got != 0 {
			t.Errorf("%v allocations", got)
		}
	})
}
