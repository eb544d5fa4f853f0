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
			host.mu.Lock()
			defer host.mu.Unlock()
			return host.modules[moduleKey{digest(module), 16 << 20 >> 16}]
		}
		// kept is how many there are, and which of some are still compiled.
		kept := func(these ...*module) (n int, compiled string) {
			host.mu.Lock()
			defer host.mu.Unlock()
			for _, m := range these {
				compiled += fmt.Sprintf("%t ", m.compiled != nil)
			}
			return len(host.modules), compiled
		}
		first, second := admit(1), admit(2)
		admit(1) // it is the newest again
		third := admit(3)
		if n, which := kept(first, second, third); n != mostLate || which != "true false true " {
			t.Errorf("%d are kept, %s: not the %d that were looked at last", n, which, mostLate)
		}
		time.Sleep(keptLate)
		synctest.Wait()
		if n, which := kept(first, third); n != 0 || which != "false false " {
			t.Errorf("after a while %d are kept, %s", n, which)
		}
		fourth := admit(4)
		if err := host.Close(); err != nil {
			t.Error(err)
		}
		if n, which := kept(fourth); n != 0 || which != "false " {
			t.Errorf("after the host was closed %d are kept, %s", n, which)
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
