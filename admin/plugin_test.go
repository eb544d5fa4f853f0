package admin_test

import (
	"bytes"
	"context"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// module is what the test's admission takes for WASM, of some size.
func module(size int, fill byte) []byte {
	return append([]byte("\x00asm"), bytes.Repeat([]byte{fill}, size)...)
}

func (a *api) push(t *testing.T, req *weirv1.PushPluginRequest) *weirv1.PushPluginResponse {
	t.Helper()
	res, err := a.PushPlugin(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestPushPlugin(t *testing.T) {
	a := start(t, nil)
	first := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(1<<20, 1), Limits: &weirv1.PluginLimits{Fuel: 7}, Labels: map[string]string{"a": "b"}})
	if p := first.GetPlugin(); p.GetStatus().GetAbi() != "0.2.1" || p.GetStatus().GetSizeBytes() != 1<<20+4 || p.GetMetadata().GetTenant() != "default" {
		t.Errorf("got %v", first)
	}
	chunks := 0
	for _, cmd := range a.cluster.Commands() {
		if c := cmd.GetPutBlobChunk(); c != nil {
			if chunks++; len(c.GetChunk()) > 512<<10 {
				t.Errorf("a chunk has %d bytes", len(c.GetChunk()))
			}
		}
	}
	if chunks != 3 {
		t.Errorf("sent %d chunks, want 3", chunks)
	}

	same := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(1<<20, 1)})
	if same.GetRevision() != first.GetRevision() || len(a.cluster.Commands()) != 5 {
		t.Errorf("the same module again was a change: %d commands, revision %d", len(a.cluster.Commands()), same.GetRevision())
	}
	other := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 2), Limits: &weirv1.PluginLimits{MemoryBytes: 1 << 20}})
	if p := other.GetPlugin(); p.GetSpec().GetDigest() == first.GetPlugin().GetSpec().GetDigest() || p.GetSpec().GetLimits().GetFuel() != 7 ||
		p.GetSpec().GetLimits().GetMemoryBytes() != 1<<20 || p.GetMetadata().GetLabels()["a"] != "b" || other.GetRevision() <= first.GetRevision() {
		t.Errorf("got %v", other)
	}
}

func TestPushPluginRefuses(t *testing.T) {
	a := start(t, nil)
	for _, c := range []struct {
		req     *weirv1.PushPluginRequest
		message string
		field   string
	}{
		{&weirv1.PushPluginRequest{Name: "a"}, "module: is empty", "module"},
		{&weirv1.PushPluginRequest{Name: "a", Module: []byte("GIF89a")}, "module: is not a WASM module", "module"},
		{&weirv1.PushPluginRequest{Name: "a", Module: module(1, 1), Limits: &weirv1.PluginLimits{MemoryBytes: 1 << 16}}, "module: asks for 2 pages", "module"},
		{&weirv1.PushPluginRequest{Name: "A", Module: module(1, 1)}, `name: "A" is not a name`, "name"},
		{&weirv1.PushPluginRequest{Name: "a", Module: module(1, 1), Limits: &weirv1.PluginLimits{MemoryBytes: 1}}, "spec.limits.memoryBytes: must be", "spec.limits.memoryBytes"},
	} {
		_, err := a.PushPlugin(t.Context(), c.req)
		if fields := expectError(t, err, connect.CodeInvalidArgument, c.message); len(fields) != 1 || fields[0] != c.field {
			t.Errorf("%s: got fields %q", c.message, fields)
		}
	}
	if len(a.cluster.Commands()) != 0 {
		t.Error("it was proposed")
	}
	if res := a.push(t, &weirv1.PushPluginRequest{Name: "a", Module: module(1, 1), DryRun: true}); res.GetPlugin().GetStatus() == nil || len(a.cluster.Commands()) != 0 {
		t.Errorf("a dry run: got %v", res)
	}
}

// The one call that may be big is this one.
func TestOnlyAModuleMayBeBig(t *testing.T) {
	a := start(t, nil)
	a.push(t, &weirv1.PushPluginRequest{Name: "big", Module: module(40<<20, 1)})
	_, err := a.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE})
	if err != nil {
		t.Fatal(err)
	}
	big := &weirv1.Service{Metadata: &weirv1.Metadata{Name: "a", Annotations: map[string]string{"a": string(bytes.Repeat([]byte("x"), 33<<20))}}}
	_, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{{Kind: &weirv1.Resource_Service{Service: big}}}})
	expectError(t, err, connect.CodeResourceExhausted, "")
}

// A Plugin that is applied as a file keeps what Weir knows of its module, and
// one with new limits is judged by them.
func TestApplyPlugin(t *testing.T) {
	a := start(t, nil)
	pushed := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 1)})
	digest := pushed.GetPlugin().GetSpec().GetDigest()
	if got := outcomes(a.apply(t, "kind: Plugin\nmetadata: {name: stamp}\nspec: {digest: "+digest+"}")); got != "plugin/stamp unchanged" {
		t.Errorf("got %s", got)
	}
	done := a.apply(t, "kind: Plugin\nmetadata: {name: other}\nspec: {digest: "+digest+", limits: {fuel: 9}}")
	if done.GetResults()[0].GetResource().GetPlugin().GetStatus().GetAbi() != "0.2.1" {
		t.Errorf("got %v", done)
	}
	_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, "kind: Plugin\nmetadata: {name: stamp}\nspec: {digest: "+digest+", limits: {memoryBytes: 65536}}")})
	fields := expectError(t, err, connect.CodeInvalidArgument, "Plugin stamp: spec: asks for 2 pages")
	if len(fields) != 1 || fields[0] != "resources[0].spec" {
		t.Errorf("got fields %q", fields)
	}
}

// A push takes over what it does not say. What someone else changes while its
// module is judged is not undone by that.
func TestPushPluginBesideAnotherChange(t *testing.T) {
	judging, judged := make(chan struct{}), make(chan struct{})
	a := start(t, func(c *admin.Config) { c.Admission = slow{c.Admission, judging, judged} })
	go func() { <-judging; judged <- struct{}{} }()
	pushed := a.push(t, &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 1), Limits: &weirv1.PluginLimits{Fuel: 7}})

	changed := make(chan error, 1)
	go func() {
		<-judging
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, "kind: Plugin\nmetadata: {name: stamp, labels: {a: b}}\nspec: {digest: "+
			pushed.GetPlugin().GetSpec().GetDigest()+", limits: {fuel: 7}}")})
		changed <- err
		judged <- struct{}{}
	}()
	_, err := a.PushPlugin(t.Context(), &weirv1.PushPluginRequest{Name: "stamp", Module: module(10, 2)})
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	expectError(t, err, connect.CodeAborted, "Plugin stamp: metadata.revision: revision 2 was expected")
}

// slow is an Admission that waits while something else happens.
type slow struct {
	admin.Admission
	judging, judged chan struct{}
}

func (s slow) Admit(ctx context.Context, name string, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	s.judging <- struct{}{}
	<-s.judged
	return s.Admission.Admit(ctx, name, module, limits)
}
