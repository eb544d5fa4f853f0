//go:build !race

// The race detector slows down the engine's compiler so much that these modules
// take it minutes; the host's own tests, in policy/wasm, run under it.

package plugins_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weirmesh/weir/examples/plugins"
	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/plugintest"
	"github.com/weirmesh/weir/policy/wasm"
	"github.com/weirmesh/weir/proxy/exchange"
)

// The plugins' own tests run their code in plain Go. Here the modules run, as
// stock Go builds them, in the host that a proxy has.

// build compiles a plugin from source, so that what is tested is what is written.
var build = func() func(testing.TB, string) []byte {
	var mu sync.Mutex
	built := map[string][]byte{}
	return func(t testing.TB, name string) []byte {
		t.Helper()
		if slices.Contains(plugins.Standard(), name) {
			name = "standard"
		}
		mu.Lock()
		defer mu.Unlock()
		if built[name] != nil {
			return built[name]
		}
		dependOn(t, name)
		dependOn(t, "../../plugins-sdk")
		file := filepath.Join(t.TempDir(), name+".wasm")
		cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
		cmd.Dir = name
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		module, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		built[name] = module
		return module
	}
}()

// dependOn looks at every source file below a directory, so that `go test` knows
// not to repeat an old result when one has changed.
func dependOn(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cache is where the tests' hosts keep compiled modules.
var cache = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "weir-plugins-") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := cache(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

type plugin struct{ name, config string }

// start makes a chain of plugins on a host of its own.
func start(t testing.TB, list ...plugin) *policy.Chain {
	t.Helper()
	dir, err := cache()
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string][]byte{}
	host, err := wasm.NewHost(wasm.Config{
		CacheDir: dir,
		Modules:  func(_ context.Context, digest string) ([]byte, error) { return modules[digest], nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	var policies []policy.Policy
	for i, p := range list {
		module := build(t, p.name)
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(module))
		modules[digest] = module
		made, err := host.Make(t.Context(), policy.Spec{
			Tenant: "default", Name: fmt.Sprintf("p%d", i), Plugin: p.name, Digest: digest, Config: p.config,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(made.Release)
		policies = append(policies, made)
	}
	return policy.NewChain(policies, policy.ChainConfig{
		OnFailure: func(_ *exchange.Exchange, err *policy.Error) { t.Errorf("%v", err) },
	})
}

// chunks is a body that comes in pieces.
type chunks []string

func (c *chunks) Next() ([]byte, error) {
	if len(*c) == 0 {
		return nil, io.EOF
	}
	next := []byte((*c)[0])
	*c = (*c)[1:]
	return next, nil
}

func (c *chunks) Length() int64 { return -1 }

// asked is a request of fields in turn, as a codec would have read it.
func asked(fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{ID: []byte("r-1"), Client: netip.MustParseAddrPort("192.0.2.1:4711")}
	x.Request = exchange.Request{
		Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("shop.example"), Path: []byte("/orders"),
	}
	for i := 0; i+1 < len(fields); i += 2 {
		x.Request.Fields.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

// answered puts an upstream's response into the exchange.
func answered(x *exchange.Exchange, contentType string, body ...string) {
	x.Response.Status = 200
	x.Response.Fields.Add([]byte("content-type"), []byte(contentType))
	if len(body) > 0 {
		c := chunks(body)
		x.Response.Body = &c
	}
}

func read(t testing.TB, body exchange.Body) string {
	t.Helper()
	var all strings.Builder
	for body != nil {
		chunk, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(chunk)
	}
	return all.String()
}

// serve takes an exchange through a chain as a proxy does, and returns the body
// that the client gets.
func serve(t testing.TB, c *policy.Chain, x *exchange.Exchange, upstream func(*exchange.Exchange)) string {
	t.Helper()
	run := c.Begin(x)
	defer run.Close()
	outcome, err := run.Request()
	if err != nil {
		t.Fatal(err)
	}
	if outcome == policy.Proceed {
		read(t, x.Request.Body)
		upstream(x)
	}
	if err := run.Response(); err != nil {
		t.Fatal(err)
	}
	return read(t, x.Response.Body)
}

// TestCases runs what is beside each standard policy: what its users are promised.
func TestCases(t *testing.T) {
	for _, name := range plugins.Standard() {
		file := filepath.Join("standard", name, "cases.yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := plugintest.Parse(file, text)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := cache()
		if err != nil {
			t.Fatal(err)
		}
		runner, err := plugintest.NewRunner(build(t, name), plugintest.Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				if c.Plugin != name {
					t.Errorf("the case is of plugin %q", c.Plugin)
				}
				result, err := runner.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				if !result.OK {
					t.Errorf("%s:%d: %s\n%s", c.File, c.Line, strings.Join(result.Problems, "\n"), strings.Join(result.Log, "\n"))
				}
				t.Logf("%d units of fuel", result.Fuel)
			})
		}
		if err := runner.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPhases(t *testing.T) {
	for _, c := range []struct {
		plugin
		want policy.Phases
	}{
		{plugin{"apikey", `{"keys": [{"consumer": "a", "key": "k"}]}`}, policy.RequestHead},
		{plugin{"ratelimit", `{"limit": 1}`}, policy.RequestHead | policy.ResponseHead},
		{plugin{"transform", `{"request": {"set": {"a": "b"}}}`}, policy.RequestHead | policy.ResponseHead},
		{plugin{"transform", `{"responseBody": {"remove": ["a"]}}`}, policy.RequestHead | policy.ResponseHead | policy.ResponseBody},
	} {
		host, made := makeOne(t, c.plugin)
		if got := made.Phases(); got != c.want {
			t.Errorf("%s with %s wants the phases %b, not %b", c.name, c.config, got, c.want)
		}
		made.Release()
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	}
}

func makeOne(t testing.TB, p plugin) (*wasm.Host, policy.Policy) {
	t.Helper()
	host, made, err := tryOne(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return host, made
}

func tryOne(t testing.TB, p plugin) (*wasm.Host, policy.Policy, error) {
	t.Helper()
	dir, err := cache()
	if err != nil {
		t.Fatal(err)
	}
	module := build(t, p.name)
	host, err := wasm.NewHost(wasm.Config{
		CacheDir: dir,
		Modules:  func(context.Context, string) ([]byte, error) { return module, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	made, err := host.Make(t.Context(), policy.Spec{
		Tenant: "default", Name: "p", Plugin: p.name, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(module)), Config: p.config,
	}, nil)
	return host, made, err
}

func TestAConfigurationThatIsRefusedSaysWhy(t *testing.T) {
	for _, c := range []struct {
		plugin
		why string
	}{
		{plugin{"apikey", `{}`}, "keys: there are none"},
		{plugin{"ratelimit", `{"limit": 1, "per": "hour"}`}, `unknown field "per"`},
		{plugin{"transform", `{"request": {"set": {":path": "/"}}}`}, "is not a header name"},
	} {
		host, _, err := tryOne(t, c.plugin)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s with %s: %v", c.name, c.config, err)
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	}
}

const keys = `{"keys": [{"consumer": "demo", "key": "demo-key"},
	{"consumer": "partner", "sha256": "1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032"}]}`

func TestAPIKey(t *testing.T) {
	c := start(t, plugin{"apikey", keys})
	for key, consumer := range map[string]string{"demo-key": "demo", "letmein": "partner"} {
		x := asked("X-Api-Key", key, "x-consumer", "root")
		serve(t, c, x, func(x *exchange.Exchange) { answered(x, "text/plain") })
		if got := string(x.Request.Fields.Get("x-consumer")); x.Response.Status != 200 || got != consumer {
			t.Errorf("the key %s: %d, consumer %q", key, x.Response.Status, got)
		}
		if x.Request.Fields.Has("x-api-key") {
			t.Errorf("the key %s reaches the service", key)
		}
	}
	x := asked("x-api-key", "wrong")
	body := serve(t, c, x, func(*exchange.Exchange) { t.Error("the service was asked") })
	var problem map[string]any
	if err := json.Unmarshal([]byte(body), &problem); err != nil || problem["status"] != 401.0 || problem["requestId"] != "r-1" {
		t.Errorf("refused with %s, %v", body, err)
	}
	if x.Response.Status != 401 || x.Details != "unauthenticated" || !x.Response.Fields.Has("www-authenticate") {
		t.Errorf("refused with %d %q %v", x.Response.Status, x.Details, x.Response.Fields)
	}
}

func TestTransform(t *testing.T) {
	c := start(t, plugin{"transform", `{
		"request": {"set": {"x-shop": "books"}, "remove": ["x-debug"]},
		"response": {"rename": {"server": "x-server"}},
		"responseBody": {"rename": {"isbn13": "isbn"}, "remove": ["cost"], "set": {"currency": "EUR"}}}`})
	x := asked("x-debug", "1", "accept-encoding", "gzip")
	body := serve(t, c, x, func(x *exchange.Exchange) {
		answered(x, "application/json", `[{"isbn13": "978", "co`, `st": 910}, `, `{"title": "Weirs"}]`)
		x.Response.Fields.Add([]byte("server"), []byte("books/1"))
	})
	if want := `[{"isbn":"978","currency":"EUR"}, {"title": "Weirs","currency":"EUR"}]`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if x.Request.Fields.Has("x-debug") || x.Request.Fields.Has("accept-encoding") || string(x.Request.Fields.Get("x-shop")) != "books" {
		t.Error("the request's head is not transformed")
	}
	if x.Response.Fields.Has("server") || string(x.Response.Fields.Get("x-server")) != "books/1" {
		t.Error("the response's head is not transformed")
	}
}

// TestTransformOfHeadsMakesNoCalls: its sandbox has given the changes to the host,
// in its first exchange, and only names them. With calls it would burn twice as much.
func TestTransformOfHeadsMakesNoCalls(t *testing.T) {
	host, made := makeOne(t, plugin{"transform", `{"request": {"set": {"x-a": "1"}}, "response": {"set": {"x-b": "2"}, "remove": ["server"]}}`})
	t.Cleanup(func() {
		made.Release()
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	c := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
	once := func() uint64 {
		before := host.Status()[0].Fuel
		x := asked("x-a", "0")
		serve(t, c, x, func(x *exchange.Exchange) {
			answered(x, "text/plain")
			x.Response.Fields.Add([]byte("server"), []byte("books/1"))
		})
		if string(x.Request.Fields.Get("x-a")) != "1" || string(x.Response.Fields.Get("x-b")) != "2" || x.Response.Fields.Has("server") {
			t.Error("the heads are not transformed")
		}
		return host.Status()[0].Fuel - before
	}
	once()
	const most = 1600
	if burned := once(); burned > most || once() != burned {
		t.Errorf("an exchange burns %d units of fuel, or not always as many; want at most %d", burned, most)
	}
}

// TestTransformOfTheLargest: what the default limit lets through must not empty
// the default tank.
func TestTransformOfTheLargest(t *testing.T) {
	const limit = 32 << 10
	item := `{"id": "1", "title": "The Weir Keeper", "tags": ["water", "work"], "cost": 910, "price": 1850}`
	doc := "[" + strings.Repeat(item+",\n", limit/(len(item)+2)-1) + item + "]"
	c := start(t, plugin{"transform", `{"responseBody": {"remove": ["cost"], "set": {"currency": "EUR"}}}`})
	for range 3 {
		body := serve(t, c, asked(), func(x *exchange.Exchange) { answered(x, "application/json", doc) })
		if !json.Valid([]byte(body)) || strings.Contains(body, "cost") {
			t.Fatalf("%d bytes became %d: %.200s", len(doc), len(body), body)
		}
	}
	longer := doc + strings.Repeat(" ", limit)
	if body := serve(t, c, asked(), func(x *exchange.Exchange) { answered(x, "application/json", doc, longer[len(doc):]) }); body != longer {
		t.Error("what is longer does not pass as it is")
	}
}

func TestRateLimitIsOneForAllSandboxes(t *testing.T) {
	const limit, callers, each = 100, 8, 25
	c := start(t, plugin{"ratelimit", fmt.Sprintf(`{"name": "orders", "limit": %d, "window": 3600}`, limit)})
	var passed, refused atomic.Int64
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for range each {
				x := asked()
				run := c.Begin(x)
				outcome, err := run.Request()
				if err != nil {
					t.Error(err)
				}
				if outcome == policy.Proceed {
					passed.Add(1)
				} else {
					refused.Add(1)
				}
				if outcome == policy.Answered && (x.Response.Status != 429 || !x.Response.Fields.Has("retry-after")) {
					t.Errorf("refused with %d", x.Response.Status)
				}
				run.Close()
			}
		})
	}
	group.Wait()
	if passed.Load() != limit || refused.Load() != callers*each-limit {
		t.Errorf("%d passed and %d were refused, want %d and %d", passed.Load(), refused.Load(), limit, callers*each-limit)
	}
}

func TestRateLimitHeaders(t *testing.T) {
	c := start(t, plugin{"ratelimit", `{"name": "orders", "limit": 2, "window": 3600}`})
	for _, left := range []string{"1", "0", "0"} {
		x := asked()
		serve(t, c, x, func(x *exchange.Exchange) { answered(x, "text/plain") })
		if got := string(x.Response.Fields.Get("ratelimit-policy")); got != `"orders";q=2;w=3600` {
			t.Errorf("RateLimit-Policy is %s", got)
		}
		if got := string(x.Response.Fields.Get("ratelimit")); !strings.HasPrefix(got, `"orders";r=`+left+`;t=`) {
			t.Errorf("RateLimit is %s, want %s left", got, left)
		}
	}
}

func TestTheThreeTogether(t *testing.T) {
	c := start(t,
		plugin{"apikey", keys},
		plugin{"ratelimit", `{"name": "orders", "limit": 1, "window": 3600, "header": "x-consumer"}`},
		plugin{"transform", `{"responseBody": {"remove": ["margin"]}}`})
	upstream := func(x *exchange.Exchange) { answered(x, "application/json", `{"id": "1", "margin": 2}`) }
	for _, step := range []struct {
		key    string
		status int
		body   string
	}{
		{"demo-key", 200, `{"id": "1"}`},
		{"demo-key", 429, "quota-exceeded"},
		{"letmein", 200, `{"id": "1"}`},
		{"wrong", 401, "unauthenticated"},
	} {
		x := asked("x-api-key", step.key)
		body := serve(t, c, x, upstream)
		if x.Response.Status != step.status || !strings.Contains(body, step.body) {
			t.Errorf("the key %s: %d %s; want %d %s", step.key, x.Response.Status, body, step.status, step.body)
		}
	}
}

// TestSandboxesDoNotGrow: what an exchange leaves behind in a sandbox would in
// the end exceed its memory, which fails it.
func TestSandboxesDoNotGrow(t *testing.T) {
	c := start(t, plugin{"transform", `{"response": {"set": {"a": "b"}}, "responseBody": {"remove": ["cost"]}}`})
	doc := `{"cost": 1, "text": "` + strings.Repeat("x", 30_000) + `"}`
	for range 2_000 { // 60 MB through 16
		serve(t, c, asked("x", "y"), func(x *exchange.Exchange) { answered(x, "application/json", doc) })
	}
}

// BenchmarkPlugins is what a policy adds to an exchange: the time, which must
// not allocate outside of the sandbox, and the fuel, which is the same everywhere.
func BenchmarkPlugins(b *testing.B) {
	doc := []byte(`{"id": "1", "title": "The Weir Keeper", "author": "Ada Marsh", "price": 1850, "cost": 910}`)
	for _, c := range []struct {
		name string
		plugin
	}{
		{"apikey", plugin{"apikey", keys}},
		{"ratelimit", plugin{"ratelimit", `{"limit": 4000000000, "window": 31536000}`}},
		{"headers", plugin{"transform", `{"request": {"set": {"x-a": "1"}}, "response": {"set": {"x-b": "2"}}}`}},
		{"body", plugin{"transform", `{"responseBody": {"remove": ["cost"]}}`}},
	} {
		b.Run(c.name, func(b *testing.B) {
			host, made := makeOne(b, c.plugin)
			chain := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
			x := asked("x-api-key", "letmein")
			client, request := x.Client, x.Request
			name, value := x.Request.Fields.At(0).Name, x.Request.Fields.At(0).Value
			contentType, json := []byte("content-type"), []byte("application/json")
			var body exchange.Chunk
			before := host.Status()[0].Fuel
			b.ReportAllocs()
			for b.Loop() {
				x.Reset()
				request.Fields = x.Request.Fields
				x.Client, x.Request = client, request
				x.Request.Fields.Add(name, value)
				run := chain.Begin(x)
				if outcome, err := run.Request(); err != nil || outcome != policy.Proceed {
					b.Fatal(outcome, err)
				}
				x.Response.Status = 200
				x.Response.Fields.Add(contentType, json)
				body.Set(doc)
				x.Response.Body = &body
				if err := run.Response(); err != nil {
					b.Fatal(err)
				}
				for err := error(nil); err == nil; {
					_, err = x.Response.Body.Next()
				}
				run.Close()
			}
			b.ReportMetric(float64(host.Status()[0].Fuel-before)/float64(b.N), "fuel/op")
			made.Release()
			if err := host.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkInFlight is what a policy adds when many exchanges are under way at
// once, each of them for as long as its upstream thinks: then what it keeps of
// them is no longer in the caches.
func BenchmarkInFlight(b *testing.B) {
	_, made := makeOne(b, plugin{"transform", `{"request": {"set": {"x-a": "1"}}, "response": {"set": {"x-b": "2"}}}`})
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			chain := policy.NewChain([]policy.Policy{made}, policy.ChainConfig{})
			name, value := []byte("accept"), []byte("*/*")
			exchanges, runs := make([]exchange.Exchange, n), make([]*policy.Run, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x, run := &exchanges[i%n], &runs[i%n]
				if *run != nil {
					x.Response.Status = 200
					x.Response.Fields.AddParsed(name, value)
					if err := (*run).Response(); err != nil {
						b.Fatal(err)
					}
					(*run).Close()
				}
				x.Reset()
				x.Request.Fields.AddParsed(name, value)
				*run = chain.Begin(x)
				if _, err := (*run).Request(); err != nil {
					b.Fatal(err)
				}
			}
			for _, run := range runs {
				run.Close()
			}
		})
	}
}
