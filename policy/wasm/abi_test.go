package wasm

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// pairs is a list of pairs in hexadecimal, as the guest takes and shows them.
func pairs(names ...string) string {
	return hex.EncodeToString(abi.AppendPairs(nil, len(names)/2, func(i int) ([]byte, []byte) {
		return []byte(names[2*i]), []byte(names[2*i+1])
	}))
}

func number(n int64) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(n >> (8 * i))
	}
	return hex.EncodeToString(b[:])
}

// TestHostFunctions: the guest does something, and this is what the upstream or
// the client sees of it. A status is what the host function returned.
func TestHostFunctions(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(`{"a":1}`))
	for _, test := range []struct {
		name     string
		do       string
		request  message
		response message
		// where a field is looked for, and what it must be
		field, want string
		asked, got  string
	}{
		{name: "get a field, whatever its case", do: "request: get X-In", request: message{fields: "x-in: v"}, field: "request x-v", want: "0"},
		{name: "get a field that is not there", do: "request: get x-none", field: "request x-", want: "1"},
		{name: "get a pseudo-field", do: "request: get :path", field: "request x-/books?id=1", want: "0"},
		{name: "host is the authority", do: "request: get host", field: "request x-shop.example", want: "0"},
		{name: "a response has no head yet", do: "request: foreign-get :status", field: "request x-", want: "2"},
		{name: "the request is still readable with the response", do: "response: foreign-get :method", field: "response x-GET", want: "0"},
		{name: "the number of fields counts pseudo-fields", do: "request: count", field: "request x-count", want: "count 5"},
		{name: "add", do: "request: add x-a b", field: "request x-a", want: "b"},
		{name: "add returns OK", do: "request: add x-a b", field: "request x-add", want: "add 0"},
		{name: "what would end a line does not", do: "request: inject x-evil", field: "request x-evil", want: "a  b: c"},
		{name: "a name that is none", do: "request: add a+b c", field: "request x-add", want: "add 2"},
		{name: "set", do: "request: set x-a b", request: message{fields: "X-A: 1\nx-b: 2\nx-a: 3"}, field: "request x-a", want: "b"},
		{name: "remove", do: "request: remove x-a; request: get x-a", request: message{fields: "X-A: 1"}, field: "request x-", want: "1"},
		{name: "set the status", do: "response: set :status 418", field: "response", want: "418"},
		{name: "a status that is none", do: "response: set :status 100", field: "response x-set", want: "set 2"},
		{name: "a path that would end the line", do: "request: set :path /a+b", field: "request x-set", want: "set 2"},
		{name: "a path that is none", do: "request: set :path a", field: "request x-set", want: "set 2"},
		{name: "a method that is none", do: "request: set :method G(T", field: "request x-set", want: "set 2"},
		{name: "an unknown pseudo-field", do: "request: set :protocol x", field: "request x-set", want: "set 2"},
		{name: "framing is the codec's", do: "request: set transfer-encoding chunked; request: get transfer-encoding", field: "request x-", want: "1"},
		{name: "pairs", do: "response: pairs", response: message{fields: "X-A: 1"},
			field: "response x-" + pairs(":status", "200", "X-A", "1"), want: "0"},
		{name: "set pairs", do: "response: set-pairs " + pairs(":status", "201", "x-b", "2"), response: message{fields: "X-A: 1"},
			field: "response x-b", want: "2"},
		{name: "pairs that are broken", do: "response: set-pairs ffffffff", field: "response x-set-pairs", want: "set 3"},
		{name: "pairs with a bad one change nothing", do: "response: set-pairs " + pairs("x-b", "2", "a b", "1"), response: message{fields: "x-a: 1"},
			field: "response x-a", want: "1"},

		{name: "a body in chunks", do: "request body: upper", request: message{body: []string{"ab", "cd"}}, asked: "ABCD"},
		{name: "a body held together", do: "request: pause; request body: pause-once 4; request body: show-body 1 2; request body: upper",
			request: message{body: []string{"ab", "cd"}}, asked: "ABCD"},
		{name: "a body that grows at both ends", do: "request body: prepend <; request body: append >", request: message{body: []string{"ab"}}, asked: "<ab><>"},
		{name: "a body that is replaced by a larger one", do: "response body: upper; response body: prepend 0123456789",
			response: message{body: []string{"ab"}}, got: "0123456789AB0123456789"},
		{name: "the head is changed after the body was seen", do: "response: pause; response body: pause-once 4; response body: set x-seen yes",
			response: message{body: []string{"ab", "cd"}}, field: "response x-seen", want: "yes", got: "abcd"},
		{name: "a pause that ends itself", do: "request: continue", request: message{body: []string{"ab"}}, asked: "ab"},

		{name: "answer", do: "request: reply 403 no", field: "response", want: "403", got: "no"},
		{name: "answer with fields", do: "request: reply 403 no", field: "response x-reply", want: "yes", got: "no"},
		{name: "answer for the upstream", do: "response: reply 503 sorry", response: message{body: []string{"x"}}, field: "response", want: "503", got: "sorry"},
		{name: "answer with no status", do: "request: reply 99 no", field: "request x-reply", want: "refused 2"},
		{name: "answer when the body was seen", do: "request: pause; request body: reply 422 bad", request: message{body: []string{"x"}},
			field: "response", want: "422", got: "bad"},
		{name: "close the stream", do: "request: close", field: "response", want: "502"},

		{name: "set and get shared data", do: "request: shared k v; request: shared k w 1", field: "request x-shared", want: `"v" v1 s0 set 0`},
		{name: "a version that has passed", do: "request: shared k z 1", field: "request x-shared", want: `"w" v2 s0 set 8`},
		{name: "a key that is not there", do: "request: shared none", field: "request x-shared", want: `"" v0 s1`},
		{name: "a version for a key that is not there", do: "request: shared new v 4294967295", field: "request x-shared", want: `"" v0 s1 set 0`},
		{name: "which is there now", do: "request: shared new w 4294967295", field: "request x-shared", want: `"v" v1 s0 set 8`},

		{name: "metrics", do: "request: metric", field: "request x-metric", want: "42 0, wrong 2, down 2, none 1"},
		{name: "the effective context", do: "request: context 1", field: "request x-context", want: "0 2"},
		{name: "another's context", do: "request: context 99", field: "request x-context", want: "2 0"},
		{name: "a map that is none", do: "request: map 99", field: "request x-map", want: "map 2"},
		{name: "a map of an answer, without one", do: "request: map 6", field: "request x-map", want: "map 2"},
		{name: "trailers that have not come", do: "request: map 1", field: "request x-map", want: "map 2"},
		{name: "a buffer that is none", do: "request: buffer 99", field: "request x-buffer", want: "buffer 1"},
		{name: "a body outside of its callback", do: "request: buffer 0", request: message{body: []string{"ab"}}, field: "request x-buffer", want: "buffer 1", asked: "ab"},
		{name: "a level that is none", do: "request: log-at 9", field: "request x-log-at", want: "log 2"},
		{name: "an empty value", do: "request: set x-a; request: get x-a", request: message{fields: "X-A: 1"}, field: "request x-", want: "0"},
		{name: "a foreign function", do: "request: foreign clear_route_cache", field: "request x-foreign", want: "foreign 0"},
		{name: "an unknown foreign function", do: "request: foreign sign", field: "request x-foreign", want: "foreign 1"},
		{name: "what is for configuration only", do: "request: foreign weir.phases x", field: "request x-foreign", want: "foreign 2"},
		{name: "the log's level", do: "request: level", field: "request x-level", want: "level 2"},
		{name: "a call that names no path", do: "request: call-nowhere", field: "request x-call-nowhere", want: "call 2"},
		{name: "a call where nothing is granted", do: "request: call users /", field: "request x-call", want: "call 2"},
		{name: "a queue that there is not", do: "request: queue none", field: "request x-queue", want: "queue 1"},
		{name: "the allocator cannot call back", do: "request: reenter", field: "request x-reenter", want: "inside 10"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.request.fields = "x-do: " + test.do + "\n" + test.request.fields
			if strings.HasPrefix(test.field, "request x-count") {
				test.request.fields = "x-do: " + test.do
			}
			o := serve([]policy.Policy{p}, test.request, test.response)
			if o.err != nil {
				t.Fatal(o.err)
			}
			head, name, _ := strings.Cut(test.field, " ")
			got := o.request
			if head == "response" {
				got = o.response
			}
			// The guest shows a value as part of a name and of a field.
			if name == "" {
				got, _, _ = strings.Cut(got, "\n")
			} else if v := value(got, name); v != "" || test.want == "" {
				got = v
			} else {
				got = shown(got, strings.TrimPrefix(name, "x-"))
			}
			if test.field != "" && got != test.want {
				t.Errorf("%s is %q, want %q\n%s\n%s", test.field, got, test.want, o.request, o.response)
			}
			if o.asked != test.asked || o.got != test.got {
				t.Errorf("asked %q, want %q; got %q, want %q", o.asked, test.asked, o.got, test.got)
			}
		})
	}
	if p.Status().Traps > 0 {
		t.Errorf("trapped: %s", p.Status().LastError)
	}
}

// TestOfSeveralAnswersTheFirstCounts, and to end the exchange is one, too. The guest is
// told that each went well.
func TestOfSeveralAnswersTheFirstCounts(t *testing.T) {
	p := newFixture(t, Config{}).make(spec(""))
	for _, test := range []struct {
		name, do          string
		request, response message
		status, got       string
	}{
		{name: "two", do: "request: reply 403 no; request: reply 404 nothing", status: "403", got: "no"},
		{name: "three, and others between", do: "request: reply 403 no; request: add x-a b; request: reply 404 nothing; request: reply 500 bad", status: "403", got: "no"},
		{name: "one without a status before", do: "request: reply 99 none; request: reply 403 no", status: "403", got: "no"},
		{name: "one without a status after", do: "request: reply 403 no; request: reply 99 none", status: "403", got: "no"},
		{name: "with a body", do: "request: pause; request body: reply 422 bad; request body: reply 423 worse", request: message{body: []string{"x"}}, status: "422", got: "bad"},
		{name: "for the service", do: "response: reply 503 sorry; response: reply 504 late", response: message{body: []string{"x"}}, status: "503", got: "sorry"},
		{name: "to end it, then an answer", do: "request: close; request: reply 403 no", status: "502"},
		{name: "an answer, then to end it", do: "request: reply 403 no; request: close", status: "403", got: "no"},
		{name: "in two exchanges", do: "request: reply 404 again", status: "404", got: "again"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := do(test.do)
			m.body = test.request.body
			o := serve([]policy.Policy{p}, m, test.response)
			if status, _, _ := strings.Cut(o.response, "\n"); o.err != nil || status != test.status || o.got != test.got {
				t.Errorf("%q with %q, %v", status, o.got, o.err)
			}
		})
	}
}

// shown finds "x-COMMAND: WHAT STATUS" and returns the status.
func shown(head, what string) string {
	for line := range strings.Lines(head) {
		_, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if status, ok := strings.CutPrefix(v, what+" "); ok {
			return status
		}
	}
	return ""
}

func TestProperties(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	text := func(s string) string { return hex.EncodeToString([]byte(s)) }
	for path, want := range map[string]string{
		"request/path":           text("/books?id=1"),
		"request/url_path":       text("/books"),
		"request/query":          text("id=1"),
		"request/host":           text("shop.example"),
		"request/scheme":         text("http"),
		"request/method":         text("GET"),
		"request/headers/x-in":   text("v"),
		"request/referer":        text("here"),
		"request/useragent":      text("test"),
		"request/id":             text("id-1"),
		"request/protocol":       text("HTTP/1.1"),
		"request/size":           number(0),
		"response/code":          number(203),
		"response/headers/x-r":   text("w"),
		"response/grpc_status":   number(5),
		"response/flags":         number(0),
		"source/address":         text("192.0.2.1:1234"),
		"source/port":            number(1234),
		"destination/address":    text("192.0.2.2:80"),
		"destination/port":       number(80),
		"plugin_name":            text("stamp"),
		"plugin_root_id":         "",
		"plugin_vm_id":           text("t"),
		"route_name":             text("t/books"),
		"cluster_name":           text("t/books-service"),
		"xds/route_name":         text("t/books"),
		"weir/tenant":            text("t"),
		"weir/plugin":            text("guest"),
		"weir/revision":          number(7),
		"weir/request_id":        text("id-1"),
		"weir/consumer/app":      text("demo"),
		"weir/consumer/plan":     text("free"),
		"weir/consumer/tenant":   "none",
		"connection/mtls":        "none",
		"request/headers/x-none": "none",
		"unknown":                "none",
	} {
		request := do("response: property "+path, "x-in: v", "referer: here", "user-agent: test")
		o := serve([]policy.Policy{p}, request, message{status: 203, fields: "x-r: w\ngrpc-status: 5"})
		got := "none"
		if v, found := strings.CutSuffix(value(o.response, "x-property"), " 0"); found {
			got = v
		}
		if got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestAPropertyReachesThePoliciesThatFollow(t *testing.T) {
	f := newFixture(t, Config{})
	other := spec("")
	other.Name = "other"
	o := serve([]policy.Policy{f.make(spec("")), f.make(other)}, do("request: set-property who me; response: property who"), message{})
	if got := value(o.response, "x-property"); got != hex.EncodeToString([]byte("me"))+" 0" {
		t.Errorf("got %q\n%s", got, o.response)
	}
}

func TestChangingWhatTheRouteDependsOnAsksForAnotherRoute(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	for do, want := range map[string]bool{
		"request: set :path /other":          true,
		"request: set :path /books?id=1":     false,
		"request: set :authority other":      true,
		"request: set host other":            true,
		"request: set :method POST":          true,
		"request: set :scheme https":         false,
		"request: set x-a b":                 false,
		"request: foreign clear_route_cache": true,
	} {
		o := serve([]policy.Policy{p}, message{fields: "x-do: " + do}, message{})
		if o.x.RouteChanged != want {
			t.Errorf("%s: changed is %v", do, o.x.RouteChanged)
		}
	}
}

func TestTrailers(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	x := newExchange()
	x.Request.Fields.Add([]byte("x-do"), []byte("response: told"))
	x.Request.Body = &pieces{[]string{"a"}}
	x.Request.Trailers.Add([]byte("X-Trailer"), []byte("seen"))
	run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
	defer run.Close()
	if _, err := run.Request(); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(x.Request.Body); err != nil {
		t.Fatal(err)
	}
	x.Response.Status = 200
	if err := run.Response(); err != nil {
		t.Fatal(err)
	}
	if got := string(x.Response.Fields.Get("x-told")); got != "trailer seen" {
		t.Errorf("got %q", got)
	}
}

// TestBadPointers: whatever a guest gives as pointers and lengths, it is told so
// and nothing else happens.
func TestBadPointers(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	for _, at := range []string{"0xffffffff", "0xfffffffc", "0x7fffffff", "0x01000000"} {
		for _, n := range []string{"4", "0x7fffffff", "0xffffffff"} {
			o := serve([]policy.Policy{p}, do("request: bad "+at+" "+n), message{})
			if o.err != nil {
				t.Fatal(o.err)
			}
			for i, status := range strings.Fields(value(o.request, "x-bad")) {
				switch abi.Status(status[0] - '0') {
				case abi.InvalidMemoryAccess, abi.NotFound, abi.BadArgument:
				default:
					t.Errorf("at %s, %s bytes: function %d returns %s", at, n, i, status)
				}
			}
		}
	}
	if p.Status().Traps > 0 {
		t.Errorf("trapped: %s", p.Status().LastError)
	}
}

// FuzzPointers is the same with numbers of any kind.
func FuzzPointers(f *testing.F) {
	fix := newFixture(f, Config{})
	p := fix.make(spec(""))
	f.Add(uint32(0), uint32(0))
	f.Add(uint32(1<<16), uint32(1<<24))
	f.Fuzz(func(t *testing.T, at, n uint32) {
		request := do(fmt.Sprintf("request: bad %d %d", at, n))
		// What is written to the guest's own memory may well trap it; the host
		// must neither crash nor hang.
		o := serve([]policy.Policy{p}, request, message{})
		if o.err != nil && !strings.Contains(o.err.Error(), "guest") && p.Status().Traps == 0 {
			t.Fatal(o.err)
		}
		p.circuit.until.Store(0)
	})
}

func TestLimitsOnWhatTheHostKeeps(t *testing.T) {
	f := newFixture(t, Config{SharedBytes: 100})
	p := f.make(spec(""))
	long := strings.Repeat("v", 99)
	o := serve([]policy.Policy{p}, do("request: shared k "+long+"; request: shared l v"), message{})
	if got := value(o.request, "x-shared"); got != `"" v0 s1 set 10` {
		t.Errorf("beyond the limit: %s", got)
	}
	o = serve([]policy.Policy{p}, do("request: shared k w; request: shared l v"), message{})
	if got := value(o.request, "x-shared"); got != `"" v0 s1 set 0` {
		t.Errorf("when there is room again: %s", got)
	}
	o = serve([]policy.Policy{p}, do("request body: grow-body 4194305", ""), message{})
	if o.err != nil {
		t.Error(o.err)
	}
	request := do("request body: grow-body 4194305")
	request.body = []string{"x"}
	if o = serve([]policy.Policy{p}, request, message{}); o.asked != "x" || !strings.Contains(f.journal.String(), "grown 2") {
		t.Errorf("a body of %d bytes\n%s", len(o.asked), f.journal)
	}
}

func TestSharedDataIsTheTenants(t *testing.T) {
	f := newFixture(t, Config{})
	mine, theirs := spec(""), spec("")
	theirs.Tenant = "u"
	a, b := f.make(mine), f.make(theirs)
	serve([]policy.Policy{a}, do("request: shared k v"), message{})
	if o := serve([]policy.Policy{b}, do("request: shared k"), message{}); value(o.request, "x-shared") != `"" v0 s1` {
		t.Errorf("another tenant sees %s", value(o.request, "x-shared"))
	}
}

func TestEveryHostFunctionIsExplained(t *testing.T) {
	for name, f := range envFunctions {
		if f.about == "" {
			t.Errorf("%s is not explained", name)
		}
	}
	if n := len(envFunctions); n < 40 {
		t.Errorf("%d functions", n)
	}
}

func openSpec(config string) policy.Spec {
	s := spec(config)
	s.FailureMode = weirv1.PolicySpec_OPEN
	return s
}
