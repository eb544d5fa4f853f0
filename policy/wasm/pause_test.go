package wasm

import (
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
)

// TestWhatAPauseOnAHeadMeans: in Envoy's two ways, in the SDK's, and in Higress's
// version of the ABI. Held is the end of the body that the plugin sees while it waits.
func TestWhatAPauseOnAHeadMeans(t *testing.T) {
	for _, test := range []struct {
		name   string
		stop   bool   // allowOnHeadersStopIteration
		phases string // what the plugin announces
		action string
		body   bool
		// waits: for the plugin to continue; shown: the body, meanwhile.
		waits, shown bool
	}{
		{name: "Envoy's default", action: "1", body: true, waits: true},
		{name: "Envoy's default, no body", action: "1", waits: true},
		{name: "stop iteration", stop: true, action: "1", body: true, shown: true},
		{name: "stop iteration, no body", stop: true, action: "1", waits: true},
		{name: "stop all iteration, by its number", stop: true, action: "4", body: true, waits: true},
		{name: "and buffer, by its number", stop: true, action: "3", body: true, waits: true},
		{name: "the SDK's hold", phases: "79", action: "1", body: true, shown: true},
		{name: "the SDK's hold, no body", phases: "79", action: "1"},
		{name: "the SDK's wait", phases: "79", action: "4", body: true, waits: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, Config{})
			s := spec("")
			s.StopIteration = test.stop
			if test.phases != "" {
				s.Config = `"phases ` + test.phases + `"`
			}
			p := f.make(s)
			x := newExchange()
			x.Deadline = time.Now().Add(20 * time.Millisecond)
			x.Request.Fields.Add([]byte("x-do"), []byte("request: wait "+test.action+"; request body: set x-shown yes"))
			if test.body {
				x.Request.Body = &pieces{[]string{"ab"}}
			}
			run := policy.NewChain([]policy.Policy{p}, policy.ChainConfig{}).Begin(x)
			defer run.Close()
			_, err := run.Request()
			if waited := err != nil; waited != test.waits {
				t.Errorf("it waits: %v (%v)", waited, err)
			}
			if shown := x.Request.Fields.Has("x-shown"); shown != test.shown {
				t.Errorf("it is shown the body: %v", shown)
			}
		})
	}
}
