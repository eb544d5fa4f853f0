package wasm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// twoEndpoints are those of a service: one that is well, and one that is not.
type twoEndpoints struct{}

func (twoEndpoints) Endpoints(yield func(string, bool) bool) {
	_ = yield("10.0.0.1:80", true) && yield("10.0.0.2:80", false)
}

// TestAGuestChoosesTheEndpoint of those that it is told of, as long as the request is
// not sent.
func TestAGuestChoosesTheEndpoint(t *testing.T) {
	f := newFixture(t, Config{})
	p := f.make(spec(""))
	listed := [][2]string{{"10.0.0.1:80", `{"health_status":"Healthy"}`}, {"10.0.0.2:80", `{"health_status":"Unhealthy"}`}}
	all := fmt.Sprintf("%x", abi.AppendPairs(nil, len(listed), func(i int) (name, value []byte) { return []byte(listed[i][0]), []byte(listed[i][1]) }))
	for _, c := range []struct {
		name, do, field, want, preferred string
		none, response                   bool
	}{
		{name: "what there is", do: "request: endpoints", field: "x-endpoints", want: all + " 0"},
		{name: "no service", do: "request: endpoints", field: "x-endpoints", want: " 1", none: true},
		{name: "too late to ask", do: "response: endpoints", field: "x-endpoints", want: " 2", response: true},
		{name: "chosen", do: "request: prefer 10.0.0.2:80", field: "x-prefer", want: "prefer 0", preferred: "10.0.0.2:80"},
		{name: "chosen, and taken back", do: "request: prefer 10.0.0.2:80; request: prefer", field: "x-prefer", want: "prefer 0"},
		{name: "no address", do: "request: prefer a+b", field: "x-prefer", want: "prefer 2"},
		{name: "too long", do: "request: prefer " + strings.Repeat("a", maxEndpointAddress+1), field: "x-prefer", want: "prefer 2"},
		{name: "too late to choose", do: "response: prefer 10.0.0.2:80", field: "x-prefer", want: "prefer 2", response: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newExchange()
			if !c.none {
				x.Endpoints = twoEndpoints{}
			}
			x.Request.Fields.Add([]byte("x-do"), []byte(c.do))
			run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
			defer run.Close()
			if _, err := run.Request(); err != nil {
				t.Fatal(err)
			}
			fields := &x.Request.Fields
			if c.response {
				x.Response.Status = 200
				if err := run.Response(); err != nil {
					t.Fatal(err)
				}
				fields = &x.Response.Fields
			}
			if got := string(fields.Get(c.field)); got != c.want {
				t.Errorf("%s is %q, want %q", c.field, got, c.want)
			}
			if x.Preferred != c.preferred {
				t.Errorf("preferred %q", x.Preferred)
			}
		})
	}
}
