package signature

import (
	"encoding/binary"
	"errors"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// remembering calls do in a sandbox.
type remembering struct{ do func() }

func (r *remembering) OnRequest(*sdk.Request) sdk.Action {
	r.do()
	return sdk.Continue
}

func inSandbox(t *testing.T, do func()) *policytest.Host {
	t.Helper()
	p := policytest.Start(t, func(struct{}) (sdk.Handler, error) { return &remembering{do}, nil }, "")
	p.Do(policytest.Exchange{})
	return p.Host()
}

// TestMemory: a signature is refused until it is too old, and then forgotten.
func TestMemory(t *testing.T) {
	m := newMemory("m", 1000)
	host := inSandbox(t, func() {
		identity := func(i int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(i)) }
		for i := range 1000 {
			if err := m.add(identity(i), 500, 100); err != nil {
				t.Fatalf("signature %d: %v", i, err)
			}
		}
		for i := range 1000 {
			if err := m.add(identity(i), 500, 500); !errors.Is(err, errReplayed) {
				t.Fatalf("signature %d again: %v", i, err)
			}
		}
		for i := range 1000 {
			if err := m.add(identity(i), 900, 501); err != nil {
				t.Fatalf("signature %d, when it is too old: %v", i, err)
			}
		}
	})
	if n := host.SharedKeys(); n != int(m.pages) {
		t.Errorf("%d values are kept, want %d", n, m.pages)
	}
}

// TestAFullMemory accepts nothing rather than to forget.
func TestAFullMemory(t *testing.T) {
	m := newMemory("m", 256)
	inSandbox(t, func() {
		full := false
		for i := range 10_000 {
			err := m.add(binary.LittleEndian.AppendUint32(nil, uint32(i)), 500, 100)
			if err != nil && !errors.Is(err, errFull) {
				t.Fatal(err)
			}
			full = full || err != nil
		}
		if !full {
			t.Error("there is no end to it")
		}
		if err := m.add(binary.LittleEndian.AppendUint32(nil, 0), 500, 100); !errors.Is(err, errReplayed) {
			t.Errorf("the first one: %v", err)
		}
	})
}
