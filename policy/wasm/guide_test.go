package wasm

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
)

// rows are the rows of the tables in docs/guides/abi.md that begin with a name.
func rows(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/guides/abi.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if name, ok := strings.CutPrefix(cells[0], "`"); ok && len(cells) > 2 {
			found[strings.TrimSuffix(name, "`")] = cells[1:]
		}
	}
	return found
}

// testNames are the tests that the guide names anywhere.
func testNames(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/guides/abi.md")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1)
}

// TestTheGuideListsEveryFunction, and nothing else: what it says of a function is
// what the host says, and the tests that it names are there.
func TestTheGuideListsEveryFunction(t *testing.T) {
	rows := rows(t)
	tests := map[string]bool{}
	for _, dir := range []string{".", "abi", "fuel", "sections", "../../proxy", "../../examples/plugins", "../../admin", "../../plugins-sdk"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
				tests[string(m[1])] = true
			}
		}
	}
	for _, name := range testNames(t) {
		if !tests[name] {
			t.Errorf("the guide names %s, which is no test", name)
		}
	}
	for name, f := range envFunctions {
		supported := "yes"
		if f.kind&absent != 0 {
			supported = "not offered"
		}
		if row := rows[name]; len(row) != 3 || row[0] != supported || row[1] != f.about {
			t.Errorf("%s: the guide says %q, want %q, %q and a test", name, row, supported, f.about)
		}
	}
	for _, c := range callbacks {
		if row := rows[c.name]; len(row) != 2 {
			t.Errorf("callback %s: the guide says %q", c.name, row)
		}
	}
	for name, row := range rows {
		if test := strings.Trim(row[len(row)-1], "`"); !tests[test] {
			t.Errorf("%s is tested by %q, which is no test", name, test)
		}
		if _, ok := envFunctions[name]; !ok && !IsCallback(name) {
			t.Errorf("the guide lists %s, which is nothing of the host's", name)
		}
	}
}

// TestFunctionsOfOldVersions are called by modules made by hand: those of 0.1.0, those
// that compilers leave behind, and a name of the specification's next version.
func TestFunctionsOfOldVersions(t *testing.T) {
	const call, i32const, add, and, eqz = 0x10, 0x41, 0x6a, 0x71, 0x45
	old := func(change func(m *rawModule)) rawModule {
		m := smallest()
		m.exports[0] = "proxy_abi_version_0_1_0"
		m.types["proxy_on_request_headers"] = [2]int{2, 1}
		m.code["proxy_on_memory_allocate"] = []byte{i32const, 0x80, 0x08} // 1024
		change(&m)
		return m
	}
	for name, c := range map[string]struct {
		module  rawModule
		changed bool // the route is to be chosen anew
	}{
		"a pause that ends itself": {changed: true, module: old(func(m *rawModule) {
			m.imports, m.imported = []string{"env.proxy_done", "env.proxy_clear_route_cache", "env.proxy_continue_response", "env.proxy_continue_request"}, [2]int{0, 1}
			// It pauses, if all are OK; else it traps.
			m.code["proxy_on_request_headers"] = []byte{call, 0, call, 1, add, call, 2, add, call, 3, add, 0x04, 0x40, 0x00, end, i32const, 1}
		})},
		"the configuration": {module: old(func(m *rawModule) {
			m.imports, m.imported = []string{"env.proxy_get_configuration", "env.pthread_equal"}, [2]int{2, 1}
			m.exports = append(m.exports, "proxy_on_configure")
			m.types["proxy_on_configure"] = [2]int{2, 1}
			m.code["proxy_on_configure"] = []byte{i32const, 16, i32const, 20, call, 0, eqz, i32const, 5, i32const, 5, call, 1, and}
		})},
		"the start of another language": {module: old(func(m *rawModule) {
			m.imports, m.imported = []string{"env.emscripten_notify_memory_growth"}, [2]int{1, 0}
			m.exports = append(m.exports, "_start")
			m.code["_start"] = []byte{i32const, 0, call, 0}
		})},
		"a main": {module: old(func(m *rawModule) {
			m.exports = append(m.exports, "_initialize", "__main_void")
			m.types["__main_void"] = [2]int{0, 1}
			m.code["__main_void"] = []byte{i32const, 0}
		})},
		"a main with arguments": {module: old(func(m *rawModule) {
			m.exports = append(m.exports, "_initialize", "main")
			m.types["main"] = [2]int{2, 1}
			m.code["main"] = []byte{i32const, 0}
		})},
		"a call by its other name": {module: old(func(m *rawModule) {
			m.imports, m.imported = []string{"env.proxy_dispatch_http_call"}, [2]int{10, 1}
			code := []byte{}
			for range 10 {
				code = append(code, i32const, 0)
			}
			// BAD_ARGUMENT, 2: there is no method. Anything else traps.
			m.code["proxy_on_request_headers"] = append(code, call, 0, i32const, 2, 0x47, 0x04, 0x40, 0x00, end, i32const, 0)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Config{})
			module := c.module.bytes()
			f.modules[digest(module)] = module
			s := spec(`{"a":1}`)
			s.Digest = digest(module)
			o := serve([]policy.Policy{f.make(s)}, message{}, message{})
			if o.err != nil || o.x.RouteChanged != c.changed {
				t.Errorf("%v, route changed: %v", o.err, o.x.RouteChanged)
			}
		})
	}
}
