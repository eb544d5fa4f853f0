//go:build !race

package plugins_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/weirmesh/weir/examples/plugins"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm"
	"github.com/weirmesh/weir/resource/manifest"
)

// makeAs makes a policy of the standard module under any name, with so much fuel.
func makeAs(t testing.TB, name, config string, fuel uint64) (policy.Policy, error) {
	t.Helper()
	dir, err := cache()
	if err != nil {
		t.Fatal(err)
	}
	module := build(t, "standard")
	host, err := wasm.NewHost(wasm.Config{
		CacheDir: dir,
		Modules:  func(context.Context, string) ([]byte, error) { return module, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	made, err := host.Make(t.Context(), policy.Spec{
		Tenant: "default", Name: "p", Plugin: name, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(module)), Config: config, Fuel: fuel,
	}, nil)
	if err == nil {
		t.Cleanup(made.Release)
	}
	return made, err
}

// TestAPluginsNameSaysWhichPolicyItIs: the name may go on behind a dash.
func TestAPluginsNameSaysWhichPolicyItIs(t *testing.T) {
	for _, name := range []string{"ipfilter", "ipfilter-offices", "ipfilter-of-the-north"} {
		if _, err := makeAs(t, name, `{"deny": ["10.0.0.0/8"]}`, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"ipfilters", "-", "ip-filter", "plugin"} {
		if _, err := makeAs(t, name, `{"deny": ["10.0.0.0/8"]}`, 0); err == nil || !strings.Contains(err.Error(), "push it as one of apikey, basicauth, introspection, ipfilter, jwt") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowPasswords: bcrypt needs a Plugin with more fuel than usual.
func TestSlowPasswords(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	made, err := makeAs(t, "basicauth", fmt.Sprintf(`{"users": [{"name": "alice", "bcrypt": %q}]}`, hash), 50_000_000)
	if err != nil {
		t.Fatal(err)
	}
	c := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
	for _, step := range []struct {
		credentials string
		outcome     policy.Outcome
	}{
		{"alice:open sesame", policy.Proceed}, {"alice:open sesame", policy.Proceed},
		{"alice:guess", policy.Answered}, {"eve:open sesame", policy.Answered},
	} {
		x := asked("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(step.credentials)))
		run := c.Begin(x)
		if outcome, err := run.Request(); outcome != step.outcome || err != nil {
			t.Errorf("%s: %v, %v", step.credentials, outcome, err)
		}
		run.Close()
	}
}

// TestTheGuidesExamples: what docs/guides/policies.md shows is accepted.
func TestTheGuidesExamples(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "guides", "policies.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for block := range strings.SplitSeq(string(page), "```yaml\n") {
		text, _, _ := strings.Cut(block, "```")
		if !strings.HasPrefix(text, "apiVersion:") {
			continue
		}
		items, err := manifest.Parse(file, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			p := item.Resource.GetPolicy().GetSpec()
			if p.GetWaf() != nil {
				continue // the firewall is no plugin
			}
			config, err := p.GetConfig().MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := makeAs(t, p.GetPlugin(), string(config), 0); err != nil {
				t.Errorf("%s: %v", p.GetPlugin(), err)
			}
			shown[p.GetPlugin()] = true
		}
	}
	for _, name := range plugins.Standard() {
		if !shown[name] {
			t.Errorf("the guide shows no %s", name)
		}
	}
}
