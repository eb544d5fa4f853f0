package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirmesh/weir/policy"
)

// TestAPushCompilesOnce: what is admitted is tried and made without being compiled again.
func TestAPushCompilesOnce(t *testing.T) {
	f := newFixture(t, Config{})
	key := moduleKey{digest: digest(guest), pages: 16 << 20 >> 16}
	if _, err := f.host.Admit(t.Context(), "p", guest, Limits{}); err != nil {
		t.Fatal(err)
	}
	admitted := f.host.modules[key]
	if admitted == nil {
		t.Fatal("what was admitted is not kept")
	}
	if _, err := f.host.Try(t.Context(), guest, []policy.Spec{spec("")}); err != nil {
		t.Fatal(err)
	}
	p := f.make(spec(""))
	if made := p.module; made != admitted || f.host.modules[key] != admitted {
		t.Error("it was compiled again")
	}
	// And the other way round: what a policy uses is not compiled to be admitted.
	f.host.forgetAll()
	if _, err := f.host.Admit(t.Context(), "p", guest, Limits{}); err != nil || f.host.modules[key] != admitted {
		t.Errorf("what a policy uses was compiled again, %v", err)
	}
	if admitted.refs != 2 {
		t.Errorf("%d references: the policy has one, and what is kept another", admitted.refs)
	}
}

// TestWhatWasCompiledLatelyIsGivenUp: after a while, for others, and when the host closes.
func TestWhatWasCompiledLatelyIsGivenUp(t *testing.T) {
	nth := func(n int) []byte {
		m := smallest()
		m.exports = append(m.exports, fmt.Sprint("name", n))
		return m.bytes()
	}
	synctest.Test(t, func(t *testing.T) {
		host, err := NewHost(Config{Modules: func(context.Context, string) ([]byte, error) { return nil, errors.New("no such module") }})
		if err != nil {
			t.Fatal(err)
		}
		admit := func(n int) *module {
			module := nth(n)
			if _, err := host.Admit(t.Context(), "p", module, Limits{}); err != nil {
				t.Fatal(err)
			}
			return host.modules[moduleKey{digest(module), 16 << 20 >> 16}]
		}
		first, second := admit(1), admit(2)
		admit(1) // it is the newest again
		third := admit(3)
		if len(host.modules) != mostLate || second.compiled != nil || first.compiled == nil {
			t.Errorf("%d are kept, not the %d newest", len(host.modules), mostLate)
		}
		time.Sleep(keptLate)
		synctest.Wait()
		if len(host.modules)+len(host.late) != 0 || first.compiled != nil || third.compiled != nil {
			t.Errorf("after a while %d are kept", len(host.modules))
		}
		fourth := admit(4)
		if err := host.Close(); err != nil || fourth.compiled != nil || len(host.modules) != 0 {
			t.Errorf("after the host was closed %d are kept: %v", len(host.modules), err)
		}
	})
}

// TestTryAsksForTheModuleItself: what is tried is not some other module that is there under
// the digest.
func TestTryAsksForTheModuleItself(t *testing.T) {
	f := newFixture(t, Config{})
	if _, err := f.host.Admit(t.Context(), "p", guest, Limits{}); err != nil {
		t.Fatal(err)
	}
	_, err := f.host.Try(t.Context(), smallest().bytes(), []policy.Spec{spec("")})
	if err == nil || !strings.Contains(err.Error(), "module has digest") {
		t.Errorf("%v", err)
	}
}
