package wasm

import (
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// page is what Prometheus would be given of guests, in the format that it asks for.
func page(t testing.TB, c prometheus.Collector, accept string) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	request, answer := httptest.NewRequest("GET", "/metrics", nil), httptest.NewRecorder()
	request.Header.Set("Accept", accept)
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(answer, request)
	if answer.Code != 200 {
		t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// lines are those of a page that are no comments and no buckets between the first and the
// last.
func lines(page string) (all []string) {
	for line := range strings.Lines(page) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all
}

func TestMetricsAreShown(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	serve([]policy.Policy{p}, do("request: metric"), message{})
	serve([]policy.Policy{p}, do("request: metric"), message{})
	of := fmt.Sprintf(`plugin="guest",policy="t/%s"`, p.spec.Name)
	has := func(want ...string) {
		t.Helper()
		got := lines(page(t, f.host.GuestMetrics(), ""))
		for _, line := range want {
			if !slices.Contains(got, strings.ReplaceAll(line, "OF", of)) {
				t.Errorf("%s is missing:\n%s", line, strings.Join(got, "\n"))
			}
		}
	}
	has("weir_plugin_counter_requests_total{OF} 4", "weir_plugin_gauge_level{OF} 42",
		`weir_plugin_histogram_size_bucket{OF,le="0"} 2`, `weir_plugin_histogram_size_bucket{OF,le="3"} 2`, `weir_plugin_histogram_size_bucket{OF,le="7"} 4`,
		`weir_plugin_histogram_size_bucket{OF,le="+Inf"} 4`, "weir_plugin_histogram_size_sum{OF} 10", "weir_plugin_histogram_size_count{OF} 4")

	// Another configuration takes its place: it goes on counting.
	changed := spec(`"hello"`)
	next := f.make(changed)
	p.Release()
	serve([]policy.Policy{next}, do("request: metric"), message{})
	has("weir_plugin_counter_requests_total{OF} 6")

	// Another policy of the plugin counts for itself.
	other := spec("")
	other.Name = "other"
	serve([]policy.Policy{f.make(other)}, do("request: metric"), message{})
	has("weir_plugin_counter_requests_total{OF} 6", `weir_plugin_counter_requests_total{plugin="guest",policy="t/other"} 2`)

	next.Release()
	if text := page(t, f.host.GuestMetrics(), ""); strings.Contains(text, of) {
		t.Errorf("the policy is gone, its metrics are not:\n%s", text)
	}
}

// TestNamesOfMetrics: what guests call them, and how they are shown.
func TestNamesOfMetrics(t *testing.T) {
	for _, c := range []struct {
		kind       abi.Metric
		name, want string
	}{
		{abi.Counter, "refused", "counter_refused_total{OF}"},
		{abi.Counter, "refused_total", "counter_refused_total{OF}"},
		{abi.Counter, `refused_total{reason="key"}`, `counter_refused_total{OF,reason="key"}`},
		{abi.Counter, `refused{b="2", a="1",}`, `counter_refused_total{a="1",b="2",OF}`},
		{abi.Gauge, "wasmcustom.queue.depth", "gauge_wasmcustom_queue_depth{OF}"},
		{abi.Gauge, "größe", "gauge_gr__e{OF}"},
		{abi.Gauge, "{}", "gauge___{OF}"},
		{abi.Gauge, `a{k="say \"x\" \\ \n, }"}`, `gauge_a{k="say \"x\" \\ \n, }",OF}`},
		{abi.Gauge, `a{policy="mine",le="1"}`, `gauge_a{exported_le="1",exported_policy="mine",OF}`},
		// What is malformed is part of the name.
		{abi.Gauge, `a{k="v"`, "gauge_a_k__v_{OF}"},
		{abi.Gauge, `a{k="v"}x`, "gauge_a_k__v__x{OF}"},
		{abi.Gauge, `a{k="1",k="2"}`, "gauge_a_k__1__k__2__{OF}"},
		{abi.Gauge, `a{__name__="b"}`, "gauge_a___name____b__{OF}"},
		{abi.Gauge, `a{1="b"}`, "gauge_a_1__b__{OF}"},
		{abi.Gauge, `a{k="\t"}`, "gauge_a_k___t__{OF}"},
		{abi.Gauge, "a\nweir_build_info 7", "gauge_a_weir_build_info_7{OF}"},
	} {
		var all meters
		p := all.enter(meterKey{"t", "p", "x"})
		if p.define(c.kind, c.name) == 0 {
			t.Errorf("%q cannot be defined", c.name)
		}
		// The labels are sorted, as the page has them.
		got := lines(page(t, guestMetrics{&all}, ""))
		want := "weir_plugin_" + strings.ReplaceAll(c.want, "OF", `plugin="x",policy="t/p"`) + " 0"
		if len(got) != 1 || sortedLabels(got[0]) != sortedLabels(want) {
			t.Errorf("%q is shown as\n%s, want\n%s", c.name, strings.Join(got, "\n"), want)
		}
	}
}

func sortedLabels(line string) string {
	all := regexp.MustCompile(`[a-z_]+="(?:[^"\\]|\\.)*"`).FindAllString(line, -1)
	slices.Sort(all)
	name, _, _ := strings.Cut(line, "{")
	return name + strings.Join(all, ",")
}

// TestWhatComesOutAsTheSameIsShownOnce, of a policy; and each goes on to be counted.
func TestWhatComesOutAsTheSameIsShownOnce(t *testing.T) {
	var all meters
	p := all.enter(meterKey{"t", "p", "x"})
	ids := map[uint32]bool{}
	for _, name := range []string{"a.b", "a_b", "a_b_total", "a-b"} {
		ids[p.define(abi.Counter, name)] = true
	}
	p.meter(1).value.Store(5)
	if got := lines(page(t, guestMetrics{&all}, "")); len(ids) != 4 || len(got) != 1 || !strings.HasSuffix(got[0], " 5") {
		t.Errorf("%d metrics, shown as %q", len(ids), got)
	}
}

// TestATenantsSeriesAreBounded, over all of its policies, and are free again with these.
func TestATenantsSeriesAreBounded(t *testing.T) {
	var all meters
	fill := func(policy string) (n int) {
		p := all.enter(meterKey{"t", policy, "x"})
		for i := range maxMetrics + 1 {
			if p.define(abi.Histogram, fmt.Sprint("h", i)) != 0 {
				n++
			}
		}
		return n
	}
	most := maxTenantSeries / (len(histogramBits) + 3)
	if n := fill("p"); n != most {
		t.Errorf("%d histograms, want %d", n, most)
	}
	if n := fill("q"); n != 0 {
		t.Errorf("another policy of the tenant has %d more", n)
	}
	if p := all.enter(meterKey{"other", "p", "x"}); p.define(abi.Histogram, "h") == 0 {
		t.Error("another tenant has none")
	}
	all.leave(meterKey{"t", "p", "x"})
	if n := fill("r"); n != most {
		t.Errorf("once the policy is gone %d, want %d", n, most)
	}
}

var (
	sample = regexp.MustCompile(`^weir_plugin_(counter|gauge|histogram)_[a-zA-Z0-9_]*(\{[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*"(,[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*")*\})? \S+$`)
	typed  = regexp.MustCompile(`(?m)^# TYPE (\S+) `)
)

// FuzzNamesOfMetrics: whatever guests of two tenants call what they measure, the page can
// be read, in both formats, and no family is there twice.
func FuzzNamesOfMetrics(f *testing.F) {
	for _, name := range []string{"a", `a{k="v"}`, "a_total", "a_bucket", "a_bucket_", "a\n# TYPE weir_build_info counter", `a{policy="x"}`, `a{k="\xc3\xa4"}`, `a{k="\\"}`} {
		f.Add(name, "a_count", uint8(2), uint8(1))
		f.Add("a", name, uint8(2), uint8(2))
		f.Add(name, name, uint8(0), uint8(1))
	}
	f.Fuzz(func(t *testing.T, one, two string, kind, other uint8) {
		one, two = strings.ToValidUTF8(one, "?"), strings.ToValidUTF8(two, "?")
		var all meters
		for i, tenant := range []string{"s", "t"} {
			p := all.enter(meterKey{tenant, "p", "x"})
			p.define(abi.Metric((kind+uint8(i))%3), one)
			p.define(abi.Metric(other%3), two)
		}
		for _, format := range []string{"text/plain", "application/openmetrics-text; version=1.0.0"} {
			text := page(t, guestMetrics{&all}, format)
			for _, line := range lines(text) {
				if !sample.MatchString(line) {
					t.Errorf("%q", line)
				}
			}
			families := map[string]bool{}
			for _, m := range typed.FindAllStringSubmatch(text, -1) {
				if families[m[1]] || !strings.HasPrefix(m[1], "weir_plugin_") {
					t.Errorf("family %s is there twice, or not a guest's", m[1])
				}
				families[m[1]] = true
			}
		}
	})
}
