package waf_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/waf"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/edge"
)

func TestRulesOfOnesOwnThatAreRefused(t *testing.T) {
	for _, test := range []struct{ name, rules, want string }{
		{"not a directive", "\nSecNothing On", `rules: line 2: "SecNothing" is not for a policy`},
		{"the engine's mode", "# off\nSecRuleEngine Off", `rules: line 2: SecRuleEngine is not for a policy: mode says that`},
		{"files", "Include /etc/passwd", `rules: line 1: Include is not for a policy: it reads a file`},
		{"logs", "SecAuditLog /tmp/log", `rules: line 1: SecAuditLog is not for a policy: it writes a file`},
		{"rules from elsewhere", "SecRemoteRules key https://rules.example", `rules: line 1: SecRemoteRules is not for a policy`},
		{"a list of a file", `SecRule ARGS "@pmFromFile /etc/passwd" "id:1,phase:1,deny"`, `rules: line 1: `},
		{"addresses of a file", `SecRule REMOTE_ADDR "@ipMatchFromFile /etc/hosts" "id:1,phase:1,deny"`, `rules: line 1: failed to compile the directive "secrule": `},
		{"a program", `SecRule FILES "@inspectFile /bin/sh" "id:1,phase:2,deny"`, `@inspectFile reads files or runs programs`},
		{"another", `SecAction "id:1,phase:1,pass,exec:/bin/sh"`, `exec changes the process`},
		{"the environment", `SecAction "id:1,phase:1,pass,setenv:PATH=/tmp"`, `setenv changes the process`},
		{"names of the DNS", `SecRule REMOTE_ADDR "@rbl rbl.example" "id:1,phase:1,deny"`, `@rbl asks the DNS`},
		{"a limit", `SecAction "id:1,phase:1,pass,ctl:requestBodyLimit=100000000"`, `rules: line 1: ctl:requestBodyLimit is not for a policy`},
		{"an expression", "SecAction \"id:1,phase:1,pass\"\nSecRule ARGS \"@rx (\" \\\n  \"id:2,phase:1,deny\"", "rules: line 2: "},
		{"a number that is taken", `SecAction "id:942100,phase:1,pass"`, ``},
		{"a chain that goes on into the core rules", `SecRule ARGS "@rx a" "id:1,phase:1,deny,chain"`, `rules: line 1: the rule begins a chain that does not go on`},
		{"the end", "SecRule ARGS \\\n", "rules: line 1: the text ends within this directive"},
	} {
		t.Run(test.name, func(t *testing.T) {
			warm()
			err := check(t, &weirv1.Firewall{Rules: test.rules})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("refused with %v, not %q", err, test.want)
			}
		})
	}
}

func TestExclusionsOfNothingAreRefused(t *testing.T) {
	for _, test := range []struct{ settings, want string }{
		{`{exclusions: [{ruleIds: [942100]}]}`, ""},
		{`{exclusions: [{ruleIds: [942100, 1]}]}`, "exclusions[0].ruleIds[1]: there is no rule 1"},
		{`{exclusions: [{ruleRanges: [{first: 1, last: 9}]}]}`, "exclusions[0].ruleRanges[0]: there is no rule from 1 to 9"},
		{`{exclusions: [{tags: [attack-sql]}]}`, `exclusions[0].tags[0]: no rule has the tag "attack-sql"`},
		{`{exclusions: [{ruleIds: [7]}], rules: "SecAction \"id:7,phase:1,pass\""}`, ""},
	} {
		err := check(t, settings(t, test.settings))
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%s: %v, not %q", test.settings, err, test.want)
		}
	}
}

func TestAChainOfRulesOfOnesOwn(t *testing.T) {
	s := start(t, &weirv1.Firewall{Rules: "SecRule ARGS:a \"@streq 1\" \\\n  \"id:1,phase:1,deny,status:418,chain\"\n" +
		"SecRule ARGS:b \"@streq 2\"\nSecDataset words `\nfoo\nbar\n`\nSecRule ARGS:c \"@pmFromDataset words\" \"id:2,phase:1,deny,status:410\""}, nil)
	for target, status := range map[string]int{"/?a=1": 200, "/?a=1&b=2": 418, "/?b=2": 200, "/?c=bar": 410} {
		if got := s.ask("GET " + target); got.StatusCode != status {
			t.Errorf("%s is answered %d, not %d", target, got.StatusCode, status)
		}
	}
}

// A connection that a rule drops has no answer.
func TestDrop(t *testing.T) {
	s := start(t, &weirv1.Firewall{Rules: `SecRule ARGS:a "@streq 1" "id:1,phase:1,drop"`}, nil)
	if got, err := s.exchange([]byte("GET /?a=1 HTTP/1.1\r\nHost: x\r\n\r\n")); err == nil {
		t.Errorf("answered %d", got.StatusCode)
	}
}

func newPolicy(t testing.TB, h *waf.Host, name string, f *weirv1.Firewall) policy.Policy {
	t.Helper()
	config, err := policy.EncodeFirewall(f)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Make(context.Background(), policy.Spec{Tenant: "t", Name: name, Native: policy.Firewall, Config: config}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEqualSettingsShareARuleset(t *testing.T) {
	warm()
	h := waf.NewHost(waf.Config{})
	var all []policy.Policy
	var makers sync.WaitGroup
	made := make(chan policy.Policy, 20)
	for i := range 20 {
		makers.Go(func() { made <- newPolicy(t, h, fmt.Sprint(i), &weirv1.Firewall{ParanoiaLevel: 2}) })
	}
	makers.Wait()
	for range 20 {
		all = append(all, <-made)
	}
	other := newPolicy(t, h, "other", &weirv1.Firewall{})
	if n := h.Rulesets(); n != 2 {
		t.Errorf("there are %d rulesets, not 2", n)
	}
	other.Release()
	for _, p := range all {
		p.Release()
		p.Release() // once is enough
	}
	if n := h.Rulesets(); n != 0 {
		t.Errorf("%d rulesets are left", n)
	}
}

// Rulesets that come and go leave no memory behind.
func TestRulesetsAreFreed(t *testing.T) {
	warm()
	h := waf.NewHost(waf.Config{})
	heap := func() uint64 {
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round := func(i int) {
		newPolicy(t, h, "p", &weirv1.Firewall{AnomalyThreshold: uint32(i + 1), Rules: fmt.Sprintf(`SecRule ARGS "@rx a{%d}b" "id:1,phase:1,deny"`, i+1)}).Release()
	}
	round(0)
	before := heap()
	rounds := 20
	if raceEnabled {
		rounds = 5
	}
	for i := range rounds {
		round(i + 1)
	}
	// One ruleset is more than a megabyte, of what rulesets do not share.
	if after := heap(); after > before+(4<<20) {
		t.Errorf("the heap has grown from %d to %d bytes over %d rulesets", before, after, rounds)
	}
}

func TestHotSwap(t *testing.T) {
	s := start(t, &weirv1.Firewall{}, nil)
	var failed, asked atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				got, err := s.exchange([]byte("GET /?q=go HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"))
				if err != nil || got.StatusCode != 200 {
					failed.Add(1)
				}
				asked.Add(1)
			}
		})
	}
	for i := range 10 {
		s.Apply(firewall("shield", &weirv1.Firewall{AnomalyThreshold: uint32(5 + i)}))
		for from := asked.Load(); asked.Load() == from; { // under each
			runtime.Gosched()
			time.Sleep(time.Millisecond)
		}
	}
	stop()
	clients.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	for limit := time.Now().Add(edge.Patience); s.host.Rulesets() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d rulesets are left, not 1", s.host.Rulesets())
		}
	}
}

func TestAPolicyThatDoesNotCompileKeepsTheOneBefore(t *testing.T) {
	s := start(t, &weirv1.Firewall{}, nil)
	u := update(2, firewall("shield", &weirv1.Firewall{Rules: `SecRule ARGS "@rx (" "id:1,phase:1,deny"`}))
	if err := s.Update(context.Background(), u); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("the update is refused with %v", err)
	}
	if got := s.ask(injection); got.StatusCode != http.StatusForbidden {
		t.Errorf("answered %d", got.StatusCode)
	}
}
