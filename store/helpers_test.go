package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// bench is a store under test and a log of one entry after the other.
type bench struct {
	*Store
	t     testing.TB
	dir   string
	index uint64
	// now is the time of the next command.
	now time.Time
}

// failer is a test's or a rapid property's.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func open(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), now: time.Unix(1_000_000, 0)}
	b.open()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	s, err := Open(Config{Dir: b.dir})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Store = s
}

func (b *bench) reopen() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// entry applies commands that share an entry.
func (b *bench) entry(commands ...*weirv1.Command) []any {
	b.t.Helper()
	b.index++
	for _, c := range commands {
		if c.Time == nil {
			c.Time = timestamppb.New(b.now)
		}
	}
	return b.Apply([]uint64{b.index}, [][]byte{encode(b.t, commands...)})[0]
}

func encode(t testing.TB, commands ...*weirv1.Command) []byte {
	t.Helper()
	data, err := proto.Marshal(&weirv1.Entry{Commands: commands})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// put applies a Transact that must be accepted.
func (b *bench) put(resources ...*weirv1.Resource) *weirv1.ApplyResponse {
	b.t.Helper()
	return accepted(b.t, b.entry(transact(resources))[0])
}

func (b *bench) delete(refs ...resource.Ref) *weirv1.ApplyResponse {
	b.t.Helper()
	return accepted(b.t, b.entry(transact(nil, refs...))[0])
}

// push stores a blob in chunks of four bytes and returns its digest.
func (b *bench) push(content string) string {
	b.t.Helper()
	digest := digestOf(content)
	for offset := 0; offset < len(content); offset += 4 {
		accepted(b.t, b.entry(chunk(content, offset, 4))[0])
	}
	return digest
}

func (b *bench) get(ref resource.Ref) *weirv1.Resource {
	b.t.Helper()
	r, ok := b.View().Get(ref)
	if !ok {
		b.t.Fatalf("%s is not there", ref)
	}
	return r
}

func (b *bench) requireGone(ref resource.Ref) {
	b.t.Helper()
	if _, ok := b.View().Get(ref); ok {
		b.t.Fatalf("%s is there", ref)
	}
}

func accepted(t testing.TB, result any) *weirv1.ApplyResponse {
	t.Helper()
	response, ok := result.(*weirv1.ApplyResponse)
	if !ok {
		t.Fatalf("result is %v", result)
	}
	return response
}

// requireRefused compares the violations, as sentences.
func requireRefused(t testing.TB, result any, want ...string) {
	t.Helper()
	refused, ok := result.(*RefusedError)
	if !ok {
		t.Fatalf("result is %v, want a refusal", result)
	}
	var got []string
	for _, v := range refused.Violations {
		got = append(got, fmt.Sprintf("%s %s", v.Reason, v))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("violations (-want +got):\n%s", diff)
	}
}

func requireSame(t failer, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

// create is a Transact of what must be new.
func create(puts ...*weirv1.Resource) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_Create{Create: &weirv1.Transact{Puts: puts}}}
}

func transact(puts []*weirv1.Resource, deletes ...resource.Ref) *weirv1.Command {
	t := &weirv1.Transact{}
	for _, r := range puts {
		t.Puts = append(t.Puts, proto.Clone(r).(*weirv1.Resource))
	}
	for _, ref := range deletes {
		t.Deletes = append(t.Deletes, ref.Proto())
	}
	return &weirv1.Command{Action: &weirv1.Command_Transact{Transact: t}}
}

func chunk(content string, offset, size int) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_PutBlobChunk{PutBlobChunk: &weirv1.PutBlobChunk{
		Digest: digestOf(content),
		Size:   uint64(len(content)),
		Offset: uint64(offset),
		Chunk:  []byte(content[offset:min(len(content), offset+size)]),
	}}}
}

func putValue(table, key, value string) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_PutValue{PutValue: &weirv1.PutValue{Table: table, Key: key, Value: []byte(value)}}}
}

func changeValues(changes ...*weirv1.ValueChange) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_ChangeValues{ChangeValues: &weirv1.ChangeValues{Changes: changes}}}
}

func deleteValue(table, key string, mustExist bool) *weirv1.Command {
	return &weirv1.Command{Action: &weirv1.Command_DeleteValue{DeleteValue: &weirv1.DeleteValue{Table: table, Key: key, MustExist: mustExist}}}
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func gateway(name string, listeners ...string) *weirv1.Resource {
	spec := &weirv1.GatewaySpec{}
	for i, l := range listeners {
		spec.Listeners = append(spec.Listeners, &weirv1.Listener{Name: l, Port: uint32(8080 + i)})
	}
	return resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
}

func service(name string, subsets ...string) *weirv1.Resource {
	spec := &weirv1.ServiceSpec{}
	for _, s := range subsets {
		spec.Subsets = append(spec.Subsets, &weirv1.Subset{Name: s})
	}
	return resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: name}, Spec: spec})
}

func route(name, gateway string, backends ...*weirv1.BackendRef) *weirv1.Resource {
	return resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: gateway}},
		Rules:      []*weirv1.RouteRule{{Name: "all", BackendRefs: backends}},
	}})
}

func to(service, subset string) *weirv1.BackendRef {
	return &weirv1.BackendRef{Name: service, Subset: subset}
}

func plugin(name, digest string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PluginSpec{Digest: digest}})
}

func policy(name, plugin string, targets ...*weirv1.TargetRef) *weirv1.Resource {
	return resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{
		Plugin: plugin, TargetRefs: targets,
	}})
}

func ref(kind, name string) resource.Ref {
	return resource.Ref{Kind: kind, Tenant: resource.DefaultTenant, Name: name}
}

// at sets the precondition of a put.
func at(revision uint64, r *weirv1.Resource) *weirv1.Resource {
	resource.Meta(r).Revision = revision
	return r
}

func label(r *weirv1.Resource, key, value string) *weirv1.Resource {
	resource.Meta(r).Labels = map[string]string{key: value}
	return r
}
