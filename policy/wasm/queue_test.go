package wasm

import (
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// TestQueues: what one plugin sends, another of its tenant is told of, in its
// background, and nobody of another tenant.
func TestQueues(t *testing.T) {
	f := newFixture(t, Config{})
	listener := spec(`"listen jobs mail"`)
	listener.Name = "listener"
	foreign := listener
	foreign.Tenant, foreign.Config = "other", `"listen jobs"`
	p, sender := f.make(listener), f.make(spec(""))
	f.make(foreign)
	o := serve([]policy.Policy{sender}, do("request: queue mail; request: send mail hello 3; request: send mail trap; request: send mail again"), message{})
	if got := value(o.request, "x-queue") + ", " + value(o.request, "x-send"); got != "queue 0, send 0" {
		t.Error(got)
	}
	eventually(t, func() bool { return strings.Contains(f.journal.String(), "from queue 2: again") })
	if log := f.journal.String(); strings.Count(log, "from queue 2: hello") != 3 || strings.Count(log, "policy=other/listener") != 0 {
		t.Error(log)
	}
	eventually(t, func() bool { return p.Status().Traps == 1 }) // which cost one sandbox, and no message
	if s := p.Status(); s.VMs > 1 {
		t.Errorf("its background serves exchanges: %+v", s)
	}
}

// TestAQueueWaitsForItsListener: what was sent while nobody listened, and what a
// policy that is gone has left.
func TestAQueueWaitsForItsListener(t *testing.T) {
	f := newFixture(t, Config{})
	sender := f.make(spec("")) // keeps the tenant's queues alive
	first := spec(`"listen jobs"`)
	first.Name = "first"
	made, err := f.host.Make(t.Context(), first, nil)
	if err != nil {
		t.Fatal(err)
	}
	made.Release()
	if o := serve([]policy.Policy{sender}, do("request: send jobs left 2"), message{}); value(o.request, "x-send") != "send 0" {
		t.Error(o.request)
	}
	second := first
	second.Name = "second"
	f.make(second)
	eventually(t, func() bool { return strings.Count(f.journal.String(), "from queue 1: left") == 2 })
	if strings.Contains(f.journal.String(), "policy=t/first") {
		t.Error(f.journal)
	}
}

// TestQueuesHaveLimits: of bytes and of how many there are; and an empty one says so.
func TestQueuesHaveLimits(t *testing.T) {
	data := &tenantData{limits: tenantLimits{queues: 3 * (queueItem + 2)}}
	b := &background{policy: &Policy{}, ready: make(chan struct{}, 1)}
	token, ok := data.register([]byte("q"), b)
	if again, _ := data.register([]byte("q"), b); !ok || token == 0 || again != token {
		t.Error(token, again)
	}
	for i, want := range []abi.Status{abi.OK, abi.OK, abi.OK, abi.InternalFailure} {
		if got := data.enqueue(token, []byte{'a', byte('0' + i)}); got != want {
			t.Errorf("message %d: %d", i, got)
		}
	}
	if data.enqueue(token+1, nil) != abi.NotFound || data.enqueue(0, nil) != abi.NotFound {
		t.Error("there is no such queue")
	}
	for _, want := range []string{"a0", "a1", "a2"} {
		if got, status := data.dequeue(token); string(got) != want || status != abi.OK {
			t.Errorf("%q, %d", got, status)
		}
	}
	if _, status := data.dequeue(token); status != abi.Empty || data.queued != 0 {
		t.Error(status, data.queued)
	}
	for i := range maxQueues {
		_, ok = data.register([]byte{byte(i), byte(i >> 8), 'x'}, b)
	}
	if ok {
		t.Error("as many as anyone likes")
	}
	if _, ok := data.register(make([]byte, maxQueueName+1), b); ok {
		t.Error("a name of any length")
	}
}
