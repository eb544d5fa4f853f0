package plugintest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy/wasm"
)

// guest is testdata/guest with the names of its functions, built by stock Go;
// options share a cache, so that it is compiled once.
var (
	guest   []byte
	options Options
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "plugintest")
	if err == nil {
		options.CacheDir = filepath.Join(dir, "cache")
		guest, err = buildGuest(filepath.Join(dir, "guest.wasm"))
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func buildGuest(file string) ([]byte, error) {
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-o", file, ".")
	cmd.Dir = "testdata/guest"
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w\n%s", err, out)
	}
	return os.ReadFile(file)
}

// run runs the cases of a text in their order.
func run(t *testing.T, text string) []Result {
	t.Helper()
	cases, err := Parse("cases.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRunner(guest, options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var results []Result
	for _, c := range cases {
		result, err := r.Run(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, result)
	}
	return results
}

func TestCasesThatHold(t *testing.T) {
	text, err := os.ReadFile("testdata/cases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range run(t, string(text)) {
		if !r.OK {
			t.Errorf("%s:%d: %s:\n%s\nlog:\n%s", r.File, r.Line, r.Name, strings.Join(r.Problems, "\n"), strings.Join(r.Log, "\n"))
		}
	}
}

func TestCasesThatDoNotHold(t *testing.T) {
	for _, c := range []struct{ name, about, want string }{
		{"a verdict", "request: {headers: {x-do: refuse}}\n  expect: {verdict: continue}", "verdict: answer, want continue"},
		{"a call that is not made", "calls: [{service: users}]", "calls: service users was not called"},
		{"a call that is not expected", "request: {headers: {x-do: ask}}\n  services: users", "call 1, of service users: the case has no such call (GET /me)"},
		{"what a call asks for", "request: {headers: {x-do: ask}}\n  calls: [{service: users, request: {path: /you}}]", `call 1 request path: "/me", want "/you"`},
		{"ticks that it has not asked for", "ticks: 1", "ticks: the plugin has not asked for any"},
		{"a status", "response: {status: 201}\n  expect: {response: {status: 200}}", "response status: 201, want 200"},
		{"a field", "expect: {request: {headers: {x-stamp: no}}}", `request header x-stamp: "yes", want "no"`},
		{"a field that should be gone", "expect: {request: {headers: {x-stamp: null}}}", `request header x-stamp: "yes", want none`},
		{"a field that is missing", "expect: {request: {headers: {x-stamp: \"yes\", x-other: [a, b]}}}", `request header x-other: none, want ["a" "b"]`},
		{"a change that is not named", "expect: {response: {headers: {}}}", `response header x-stamped: "yes", want none, which is what it was`},
		{"a path", "expect: {request: {path: /other}}", `request path: "/", want "/other"`},
		{"a body", "request: {body: a}\n  expect: {request: {body: b}}", `request body: "A", want "b"`},
		{"lines", "request: {body: \"one\\ntwo\\nthree\"}\n  expect: {request: {body: \"ONE\\nzwei\\nTHREE\"}}",
			"request body: it differs at line 2 (- want, + got)\n  ONE\n- zwei\n+ TWO"},
		{"a part of a body", "response: {body: shop}\n  expect: {response: {bodyContains: [sh, pub]}}", `response body: "shop", want "pub" in it`},
		{"a log", "expect: {log: nothing}", `log: no line has "nothing"`},
		{"fuel", "expect: {fuel: 1}", "fuel: "},
		{"more fuel", "expect: {maxFuel: 1}", ", want at most 1 (+"},
		{"a request that was not made", "request: {headers: {x-do: refuse}}\n  expect: {request: {path: /}}", "request: there was none"},
		{"a panic", "request: {headers: {x-do: panic}}", "the plugin failed: run policy case-1/plugin on request: proxy_on_request_headers trapped"},
		{"another panic", "request: {headers: {x-do: panic}}\n  expect: {verdict: fail, error: fuel}", `want "fuel" in it`},
		{"a refusal", "config: {stmap: a}", "the plugin failed: make policy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, "cases:\n- name: a\n  "+c.about)[0]
			if got := strings.Join(r.Problems, "\n"); r.OK || !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A panic shows where it happened, in the names of the author's language.
func TestTheStackOfAPanic(t *testing.T) {
	r := run(t, "cases:\n- name: a\n  request: {headers: {x-do: panic}}")[0]
	stack := strings.Join(r.Stack, "\n")
	inner, outer := strings.Index(stack, "main.fail\n"), strings.Index(stack, "main.(*guest).OnRequest\n")
	if inner < 0 || outer < inner {
		t.Errorf("the stack is\n%s", stack)
	}
	if log := strings.Join(r.Log, "\n"); !strings.Contains(log, "error panic: as told") {
		t.Errorf("the log is\n%s", log)
	}
}

// Fuel is the same in every run, and golden fuel goes where an author would
// write it.
func TestGoldenFuel(t *testing.T) {
	const text = `cases:
- name: block
  request: {headers: {x-do: nothing}}
  expect: # what it does
    verdict: continue
- name: flow
  expect: {verdict: continue}
- expect: {fuel: 5, verdict: continue} # old
  name: "größer"
- name: nothing expected
- name: bounded
  expect: {maxFuel: 1000000}
- name: failing
  request: {headers: {x-do: panic}}
  expect: {verdict: fail}
- name: wrong
  expect: {verdict: answer}
`
	results := run(t, text)
	fuel := func(i int) uint64 { return results[i].Fuel }
	want := fmt.Sprintf(`cases:
- name: block
  request: {headers: {x-do: nothing}}
  expect: # what it does
    fuel: %d
    verdict: continue
- name: flow
  expect: {fuel: %d, verdict: continue}
- expect: {fuel: %d, verdict: continue} # old
  name: "größer"
- expect: {fuel: %d}
  name: nothing expected
- name: bounded
  expect: {maxFuel: 1000000}
- name: failing
  request: {headers: {x-do: panic}}
  expect: {verdict: fail}
- name: wrong
  expect: {verdict: answer}
`, fuel(0), fuel(1), fuel(2), fuel(3))
	got, n, err := Update([]byte(text), results)
	if err != nil || n != 4 || string(got) != want {
		t.Fatalf("%d, %v\n%s\nwant\n%s", n, err, got, want)
	}
	for _, r := range run(t, want)[:4] {
		if !r.OK {
			t.Errorf("%s: %q", r.Name, r.Problems)
		}
	}
	if again, n, err := Update(got, run(t, want)); err != nil || n != 0 || string(again) != want {
		t.Errorf("a second update changes %d, %v", n, err)
	}
}

func TestInspect(t *testing.T) {
	got, err := Inspect(context.Background(), guest, options)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Accepted || got.Refused != "" || got.Speaks() != "proxy-wasm 0.2.1" || !got.Named || got.Functions == 0 || got.Memory == nil {
		t.Errorf("got %+v", got)
	}
	if got.Count(wasm.Unknown) != 0 || got.Count(wasm.Supported) != len(got.Imports) || len(got.WASI) == 0 {
		t.Errorf("the imports are %+v", got.Imports)
	}
	if tools := strings.Join(got.Toolchain, ", "); !strings.Contains(tools, "Go") {
		t.Errorf("the toolchain is %q", tools)
	}
	if callbacks := strings.Join(got.Callbacks, " "); !strings.Contains(callbacks, "proxy_on_request_headers") {
		t.Errorf("the callbacks are %s", callbacks)
	}
}

func TestInspectWhatIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, module, speaks, refused string
	}{
		{"a picture", "GIF89a..", "not a WASM module", "not a WASM module"},
		{"a component", "\x00asm\x0d\x00\x01\x00", "a component (WASI 0.2)", "this is a component (WASI 0.2)"},
		{"nothing", "\x00asm\x01\x00\x00\x00", "none: it is no proxy-wasm plugin", "it is no proxy-wasm plugin"},
		{"another host's", "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00" + // type () → ()
			"\x02\x1c\x01\x03env\x14proxy_redis_init_abc\x00\x00" +
			"\x03\x02\x01\x00" + "\x07\x1f\x01\x1bproxy_abi_version_0_2_100_x\x00\x01" + "\x0a\x04\x01\x02\x00\x0b",
			"proxy-wasm 0.2.100.x", "it speaks proxy_abi_version_0_2_100_x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Inspect(context.Background(), []byte(c.module), Options{})
			if err != nil || got.Accepted || got.Speaks() != c.speaks || !strings.Contains(got.Refused, c.refused) {
				t.Errorf("%v: %q, refused %q\n%+v", err, got.Speaks(), got.Refused, got)
			}
		})
	}
	got, err := Inspect(context.Background(), guest, Options{MemoryBytes: 1 << 20})
	if err != nil || got.Accepted || !strings.Contains(got.Refused, "its memory needs") {
		t.Errorf("little memory: %v, %+v", err, got)
	}
}

func TestBench(t *testing.T) {
	r, err := NewRunner(guest, options)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cases, err := Parse("cases.yaml", []byte("cases: [{name: a}, {name: b, request: {chunks: [a, b]}}, {name: c, request: {headers: {x-do: refuse}}}]"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Bench(context.Background(), cases)
	if err != nil {
		t.Fatal(err)
	}
	if got.Start <= 0 || got.MemoryBytes < 64<<10 || len(got.Cases) != 3 {
		t.Errorf("got %+v", got)
	}
	for _, c := range got.Cases {
		if c.Time < 0 || c.Least > c.Time || c.Most < c.Time || c.Fuel == 0 || c.Exchanges == 0 {
			t.Errorf("got %+v", c)
		}
	}
	if got.Cases[1].Fuel <= got.Cases[0].Fuel {
		t.Errorf("a body costs %d, none %d", got.Cases[1].Fuel, got.Cases[0].Fuel)
	}
	broken, _ := Parse("cases.yaml", []byte("cases: [{name: a, request: {headers: {x-do: panic}}}]"))
	if _, err := r.Bench(context.Background(), broken); err == nil || !strings.Contains(err.Error(), `measure case "a"`) {
		t.Errorf("a case that fails: %v", err)
	}
}
