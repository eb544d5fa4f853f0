package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// native is a policy in Go whose callbacks are given by the test. It notes
// every callback in the log that the policies of a test share.
type native struct {
	name     string
	mode     weirv1.PolicySpec_FailureMode
	log      *[]string
	begin    func() error
	request  func(x *exchange.Exchange, end bool) (Verdict, error)
	reqBody  func(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error)
	response func(x *exchange.Exchange, end bool) (Verdict, error)
	resBody  func(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error)
}

func (n *native) Spec() Spec        { return Spec{Tenant: "t", Name: n.name, FailureMode: n.mode} }
func (n *native) Release()          {}
func (n *native) NewFilter() Filter { return n }

func (n *native) Begin(*exchange.Exchange) error {
	if n.begin != nil {
		return n.begin()
	}
	return nil
}

func (n *native) Phases() (p Phases) {
	if n.request != nil {
		p |= RequestHead
	}
	if n.reqBody != nil {
		p |= RequestBody
	}
	if n.response != nil {
		p |= ResponseHead
	}
	if n.resBody != nil {
		p |= ResponseBody
	}
	return p
}

func (n *native) note(format string, args ...any) {
	*n.log = append(*n.log, n.name+" "+fmt.Sprintf(format, args...))
}

func (n *native) OnRequest(x *exchange.Exchange, end bool) (Verdict, error) {
	n.note("request end=%v", end)
	return n.request(x, end)
}

func (n *native) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error) {
	n.note("request body %q end=%v", *chunk, end)
	return n.reqBody(x, chunk, end)
}

func (n *native) OnResponse(x *exchange.Exchange, end bool) (Verdict, error) {
	n.note("response %d end=%v", x.Response.Status, end)
	return n.response(x, end)
}

func (n *native) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error) {
	n.note("response body %q end=%v", *chunk, end)
	return n.resBody(x, chunk, end)
}

func (n *native) Close(*exchange.Exchange) { n.note("close") }

// The callbacks that tests are put together from.
func head(v Verdict, err error) func(*exchange.Exchange, bool) (Verdict, error) {
	return func(*exchange.Exchange, bool) (Verdict, error) { return v, err }
}

func body(v Verdict, err error) func(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return func(*exchange.Exchange, *[]byte, bool) (Verdict, error) { return v, err }
}

// passFrom holds until there are so many bytes.
func passFrom(n int) func(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return func(_ *exchange.Exchange, chunk *[]byte, _ bool) (Verdict, error) {
		if len(*chunk) < n {
			return Hold, nil
		}
		return Pass, nil
	}
}

func replace(from, to string) func(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return func(_ *exchange.Exchange, chunk *[]byte, _ bool) (Verdict, error) {
		*chunk = bytes.ReplaceAll(*chunk, []byte(from), []byte(to))
		return Continue, nil
	}
}

func answer(status int, text string) func(*exchange.Exchange, bool) (Verdict, error) {
	return func(x *exchange.Exchange, _ bool) (Verdict, error) {
		x.Answer(status, []byte(text))
		return Respond, nil
	}
}

// chunks is a body that comes in pieces; known says that its length is
// announced, as by Content-Length.
type chunks struct {
	parts []string
	known bool
	fails error
}

func (c *chunks) Next() ([]byte, error) {
	if len(c.parts) == 0 {
		if c.fails != nil {
			return nil, c.fails
		}
		return nil, io.EOF
	}
	b := []byte(c.parts[0])
	c.parts = c.parts[1:]
	return b, nil
}

func (c *chunks) Length() int64 {
	if !c.known {
		return -1
	}
	n := 0
	for _, p := range c.parts {
		n += len(p)
	}
	return int64(n)
}

func readAll(b exchange.Body) (string, error) {
	var all strings.Builder
	for b != nil {
		chunk, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return all.String(), err
		}
		if len(chunk) == 0 {
			return "", errors.New("an empty chunk")
		}
		all.Write(chunk)
	}
	return all.String(), nil
}

// result is what an exchange came to.
type result struct {
	outcome  Outcome
	asked    string // the request body that the upstream read
	askedLen string // and its Content-Length
	status   int
	got      string
	gotLen   string
	failed   string // the first error, from wherever
	code     int
	log      []string
}

// serve plays the proxy.
func serve(c *Chain, x *exchange.Exchange, upstream func(x *exchange.Exchange)) (res result) {
	run := c.Begin(x)
	note := func(err error) {
		res.failed = err.Error()
		var failure *Error
		if errors.As(err, &failure) {
			res.code = failure.Status
		}
	}
	outcome, err := run.Request()
	res.outcome = outcome
	switch {
	case err != nil:
		note(err)
		x.Answer(res.code, []byte("problem"))
	case outcome == Proceed:
		res.asked, err = readAll(x.Request.Body)
		res.askedLen = string(x.Request.Fields.Get("content-length"))
		switch {
		case errors.Is(err, ErrAnswered):
		case err != nil:
			note(err)
			x.Answer(500, []byte("problem"))
		default:
			upstream(x)
		}
	}
	for {
		if err = run.Response(); err == nil {
			break
		}
		note(err)
		x.Answer(res.code, []byte("problem"))
	}
	res.status = x.Response.Status
	res.gotLen = string(x.Response.Fields.Get("content-length"))
	if res.got, err = readAll(x.Response.Body); err != nil {
		note(err)
	}
	run.Close()
	return res
}

func TestChain(t *testing.T) {
	boom := errors.New("boom")
	const open, closed = weirv1.PolicySpec_OPEN, weirv1.PolicySpec_CLOSED
	pass := head(Continue, nil)
	for _, test := range []struct {
		name     string
		policies []*native
		request  *chunks
		response *chunks
		limit    int
		want     result
	}{
		{
			name:     "requests go first to last, responses last to first",
			policies: []*native{{name: "a", request: pass, response: pass}, {name: "b", request: pass, response: pass}},
			want: result{status: 200, log: []string{"a request end=true", "b request end=true", "b response 200 end=true",
				"a response 200 end=true", "a close", "b close"}},
		},
		{
			name:     "a callback that no one wants is not called",
			policies: []*native{{name: "a", response: pass}, {name: "b"}},
			request:  &chunks{parts: []string{"x"}},
			want:     result{asked: "x", status: 200, log: []string{"a response 200 end=true", "a close", "b close"}},
		},
		{
			name: "an answer ends the request, and those before see it",
			policies: []*native{{name: "a", request: pass, response: pass},
				{name: "b", request: answer(403, "no"), response: pass}, {name: "c", request: pass, response: pass}},
			want: result{outcome: Answered, status: 403, got: "no", log: []string{"a request end=true", "b request end=true",
				"a response 403 end=false", "a close", "b close"}},
		},
		{
			name:     "a body streams through the filters in order",
			policies: []*native{{name: "a", reqBody: replace("1", "22")}, {name: "b", reqBody: replace("22", "3")}},
			request:  &chunks{parts: []string{"x1", "1y"}},
			want: result{asked: "x33y", status: 200, log: []string{
				`a request body "x1" end=false`, `b request body "x22" end=false`,
				`a request body "1y" end=false`, `b request body "22y" end=false`,
				`a request body "" end=true`, `b request body "" end=true`, "a close", "b close"}},
		},
		{
			name:     "a body of one known piece keeps a known length",
			policies: []*native{{name: "a", reqBody: replace("1", "22")}},
			request:  &chunks{parts: []string{"x1"}, known: true},
			want:     result{asked: "x22", askedLen: "3", status: 200, log: []string{`a request body "x1" end=true`, "a close"}},
		},
		{
			name:     "a body of more pieces loses its length",
			policies: []*native{{name: "a", resBody: replace("1", "22")}},
			response: &chunks{parts: []string{"x1", "1y"}, known: true},
			want: result{status: 200, got: "x2222y", log: []string{`a response body "x1" end=false`,
				`a response body "1y" end=true`, "a close"}},
		},
		{
			name: "a filter that holds sees all that it held, and then the next sees the head",
			policies: []*native{
				{name: "a", request: head(Hold, nil), reqBody: body(Hold, nil)},
				{name: "b", request: pass},
			},
			request: &chunks{parts: []string{"x", "y"}},
			want: result{asked: "xy", askedLen: "2", status: 200, log: []string{"a request end=false",
				`a request body "x" end=false`, `a request body "xy" end=false`, `a request body "xy" end=true`,
				"b request end=false", "a close", "b close"}},
		},
		{
			name:     "holding without a body callback, or without a body, is going on",
			policies: []*native{{name: "a", request: head(Hold, nil), response: head(Hold, nil), resBody: body(Hold, nil)}},
			request:  &chunks{parts: []string{"x"}},
			want:     result{asked: "x", status: 200, log: []string{"a request end=false", "a response 200 end=true", "a close"}},
		},
		{
			name:     "what a filter passes it is shown nothing of, and its length stays",
			policies: []*native{{name: "a", request: head(Pass, nil), reqBody: body(Continue, nil), response: head(Pass, nil), resBody: body(Continue, nil)}},
			request:  &chunks{parts: []string{"x", "y"}, known: true},
			response: &chunks{parts: []string{"1", "2"}},
			want:     result{asked: "xy", status: 200, got: "12", gotLen: "999", log: []string{"a request end=false", "a response 200 end=false", "a close"}},
		},
		{
			name:     "a filter that held passes the rest, whose length is known then",
			policies: []*native{{name: "a", request: head(Hold, nil), reqBody: passFrom(2)}},
			request:  &chunks{parts: []string{"x", "y", "zz"}, known: true},
			want: result{asked: "xyzz", askedLen: "4", status: 200, log: []string{"a request end=false",
				`a request body "x" end=false`, `a request body "xy" end=false`, "a close"}},
		},
		{
			name:     "a request that is too large to hold",
			policies: []*native{{name: "a", mode: open, request: head(Hold, nil), reqBody: body(Hold, nil)}},
			request:  &chunks{parts: []string{"xxx", "yyy"}},
			limit:    5,
			want: result{status: 413, got: "problem", code: 413, failed: "run policy t/a on request body: body is larger than a policy may hold",
				log: []string{"a request end=false", `a request body "xxx" end=false`, "a close"}},
		},
		{
			name:     "a response that is too large to hold",
			policies: []*native{{name: "a", response: head(Hold, nil), resBody: body(Hold, nil)}},
			response: &chunks{parts: []string{"xxxxxx"}},
			limit:    5,
			want: result{status: 500, got: "problem", code: 500, failed: "run policy t/a on response body: body is larger than a policy may hold",
				log: []string{"a response 200 end=false", `a response body "xxxxxx" end=false`, "a close"}},
		},
		{
			name:     "CLOSED ends the exchange with 500",
			policies: []*native{{name: "a", mode: closed, request: head(Continue, boom), response: pass}, {name: "b", request: pass}},
			want: result{status: 500, got: "problem", code: 500, failed: "run policy t/a on request: boom",
				log: []string{"a request end=true", "a close"}},
		},
		{
			name:     "an unspecified failure mode is CLOSED",
			policies: []*native{{name: "a", begin: func() error { return boom }}},
			want:     result{status: 500, got: "problem", code: 500, failed: "run policy t/a on request: boom"},
		},
		{
			name: "OPEN goes on as if the filter were not there",
			policies: []*native{{name: "a", mode: open, request: head(Respond, boom), response: pass, reqBody: body(Hold, nil)},
				{name: "b", mode: open, begin: func() error { return boom }, request: pass}, {name: "c", request: pass}},
			request: &chunks{parts: []string{"x"}},
			want: result{asked: "x", status: 200, log: []string{"a request end=false", "c request end=false",
				"a close", "c close"}},
		},
		{
			name: "OPEN in the middle of a body lets all that was held pass unchanged",
			policies: []*native{{name: "a", mode: open, reqBody: func(_ *exchange.Exchange, chunk *[]byte, end bool) (Verdict, error) {
				if string(*chunk) == "x" {
					return Hold, nil
				}
				*chunk = nil
				return Continue, boom
			}}},
			request: &chunks{parts: []string{"x", "y", "z"}},
			want: result{asked: "xyz", status: 200, log: []string{`a request body "x" end=false`,
				`a request body "xy" end=false`, "a close"}},
		},
		{
			name:     "CLOSED in the middle of a body aborts it",
			policies: []*native{{name: "a", response: pass, resBody: body(Continue, boom)}},
			response: &chunks{parts: []string{"x", "y"}},
			want: result{status: 200, code: 500, failed: "run policy t/a on response body: boom", log: []string{
				"a response 200 end=false", `a response body "x" end=false`, "a close"}},
		},
		{
			name: "a filter may answer when it has seen the body",
			policies: []*native{{name: "a", request: pass, response: pass},
				{name: "b", request: head(Hold, nil), reqBody: func(x *exchange.Exchange, _ *[]byte, _ bool) (Verdict, error) {
					x.Answer(400, []byte("bad"))
					return Respond, nil
				}}, {name: "c", request: pass}},
			request: &chunks{parts: []string{"x"}},
			want: result{outcome: Answered, status: 400, got: "bad", log: []string{"a request end=false", "b request end=false",
				`b request body "x" end=false`, "a response 400 end=false", "a close", "b close"}},
		},
		{
			name: "a filter may answer while the upstream is being asked",
			policies: []*native{{name: "a", response: pass, reqBody: func(x *exchange.Exchange, _ *[]byte, _ bool) (Verdict, error) {
				x.Answer(400, []byte("bad"))
				return Respond, nil
			}}, {name: "b", response: pass}},
			request: &chunks{parts: []string{"x"}},
			want: result{status: 400, got: "bad", log: []string{`a request body "x" end=false`, "b response 400 end=false",
				"a close", "b close"}},
		},
		{
			name: "a filter may replace the response",
			policies: []*native{{name: "a", response: pass, resBody: replace("gone", "went")},
				{name: "b", response: answer(410, "gone"), resBody: body(Continue, nil)}},
			response: &chunks{parts: []string{"x"}},
			want: result{status: 410, got: "went", gotLen: "4", log: []string{"b response 200 end=false", "a response 410 end=false",
				`a response body "gone" end=true`, "a close", "b close"}},
		},
		{
			name: "a response that has begun is not answered anew",
			policies: []*native{{name: "a", resBody: func(x *exchange.Exchange, _ *[]byte, _ bool) (Verdict, error) {
				return Respond, nil
			}}},
			response: &chunks{parts: []string{"x"}},
			want: result{status: 200, code: 500, failed: "run policy t/a on response body: a response has already begun: it cannot be answered anew",
				log: []string{`a response body "x" end=false`, "a close"}},
		},
		{
			name: "after a failed response the filters that are left see the proxy's own answer",
			policies: []*native{{name: "a", response: pass}, {name: "b", response: head(Continue, boom)},
				{name: "c", response: pass}},
			want: result{status: 500, got: "problem", code: 500, failed: "run policy t/b on response: boom", log: []string{
				"c response 200 end=true", "b response 200 end=true", "a response 500 end=false", "a close", "b close", "c close"}},
		},
		{
			name:     "a broken body is passed on as it is",
			policies: []*native{{name: "a", reqBody: body(Continue, nil)}},
			request:  &chunks{parts: []string{"x"}, fails: boom},
			want: result{asked: "x", status: 500, got: "problem", failed: "boom", log: []string{
				`a request body "x" end=false`, "a close"}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log []string
			var policies []Policy
			for _, p := range test.policies {
				p.log = &log
				policies = append(policies, p)
			}
			c := NewChain(policies, ChainConfig{HoldLimit: test.limit})
			for range 2 { // the second time with a used Run
				log = nil
				got := serve(c, newExchange(test.request), func(x *exchange.Exchange) {
					x.Response.Status = 200
					if test.response != nil {
						x.Response.Body = copyOf(test.response)
						x.Response.Fields.Set([]byte("content-length"), []byte("999"))
					}
				})
				got.log = log
				if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(result{})); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func copyOf(c *chunks) *chunks {
	d := *c
	return &d
}

func newExchange(body *chunks) *exchange.Exchange {
	x := &exchange.Exchange{}
	if body != nil {
		x.Request.Body = copyOf(body)
	}
	return x
}

func TestOnFailureIsToldOfEveryFailure(t *testing.T) {
	var log, failures []string
	c := NewChain([]Policy{
		&native{name: "a", log: &log, mode: weirv1.PolicySpec_OPEN, request: head(Continue, io.ErrUnexpectedEOF)},
		&native{name: "b", log: &log, mode: weirv1.PolicySpec_CLOSED, request: head(Continue, io.ErrUnexpectedEOF)},
	}, ChainConfig{OnFailure: func(_ *exchange.Exchange, e *Error) { failures = append(failures, e.Policy+" "+e.Phase) }})
	run := c.Begin(newExchange(nil))
	if _, err := run.Request(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	run.Close()
	if diff := cmp.Diff([]string{"t/a request", "t/b request"}, failures); diff != "" {
		t.Error(diff)
	}
}

func TestAnEmptyChainDoesNothing(t *testing.T) {
	for _, c := range []*Chain{nil, NewChain(nil, ChainConfig{})} {
		run := c.Begin(newExchange(nil))
		outcome, err := run.Request()
		if outcome != Proceed || err != nil || run.Response() != nil || c.Len() != 0 {
			t.Errorf("outcome %v, error %v", outcome, err)
		}
		run.Close()
	}
}

// quiet is a policy that wants everything and costs nothing.
type quiet struct{}

func (quiet) Spec() Spec                                           { return Spec{} }
func (quiet) Phases() Phases                                       { return RequestHead | RequestBody | ResponseHead | ResponseBody }
func (quiet) NewFilter() Filter                                    { return quiet{} }
func (quiet) Begin(*exchange.Exchange) error                       { return nil }
func (quiet) Release()                                             {}
func (quiet) Close(*exchange.Exchange)                             {}
func (quiet) OnRequest(*exchange.Exchange, bool) (Verdict, error)  { return Hold, nil }
func (quiet) OnResponse(*exchange.Exchange, bool) (Verdict, error) { return Hold, nil }
func (quiet) OnRequestBody(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return Hold, nil
}
func (quiet) OnResponseBody(*exchange.Exchange, *[]byte, bool) (Verdict, error) {
	return Hold, nil
}

// twice is a body of two chunks that can be read again and again.
type twice struct{ n int }

func (b *twice) Length() int64 { return -1 }
func (b *twice) Next() ([]byte, error) {
	if b.n++; b.n%3 == 0 {
		return nil, io.EOF
	}
	return hello, nil
}

var hello = []byte("hello")

func TestAWarmChainDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("pools forget at random under the race detector")
	}
	c := NewChain([]Policy{quiet{}, quiet{}, quiet{}}, ChainConfig{})
	x, body := &exchange.Exchange{}, &twice{}
	exchangeOnce := func() {
		x.Reset()
		run := c.Begin(x)
		x.Request.Body = body
		if _, err := run.Request(); err != nil {
			t.Fatal(err)
		}
		drain(t, x.Request.Body)
		x.Response.Body = body
		if err := run.Response(); err != nil {
			t.Fatal(err)
		}
		drain(t, x.Response.Body)
		run.Close()
	}
	exchangeOnce()
	if n := testing.AllocsPerRun(100, exchangeOnce); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func drain(t *testing.T, b exchange.Body) {
	n := 0
	for {
		chunk, err := b.Next()
		n += len(chunk)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n != 2*len(hello) {
		t.Fatalf("read %d bytes", n)
	}
}
