package store

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func TestPutFillsInWhatIsWeirsToWrite(t *testing.T) {
	b := open(t)
	created := timestamppb.New(b.now)
	in := label(service("books"), "team", "shop")
	in.GetService().Status = &weirv1.ServiceStatus{Conditions: []*weirv1.Condition{{Type: "Accepted"}}}
	b.put(in)

	want := &weirv1.Metadata{Name: "books", Tenant: "default", Labels: map[string]string{"team": "shop"},
		Revision: 1, CreateRevision: 1, CreateTime: created, UpdateTime: created}
	got := b.get(ref("Service", "books")).GetService()
	requireSame(t, want, got.Metadata)
	requireSame(t, &weirv1.Service{ApiVersion: "weir/v1", Kind: "Service", Metadata: want, Spec: &weirv1.ServiceSpec{}}, got)

	b.now = b.now.Add(time.Hour)
	response := b.put(service("books", "v1"))
	want = &weirv1.Metadata{Name: "books", Tenant: "default",
		Revision: 2, CreateRevision: 1, CreateTime: created, UpdateTime: timestamppb.New(b.now)}
	requireSame(t, want, resource.Meta(b.get(ref("Service", "books"))))
	requireSame(t, &weirv1.ApplyResponse{Revision: 2, Results: []*weirv1.ApplyResult{{
		Ref: ref("Service", "books").Proto(), Outcome: weirv1.ApplyResult_UPDATED, Resource: b.get(ref("Service", "books")),
	}}}, response)
}

func TestWhatDoesNotChangeKeepsItsRevision(t *testing.T) {
	b := open(t)
	digest := b.push("module")
	first := plugin("stamp", digest)
	first.GetPlugin().Status = &weirv1.PluginStatus{Abi: "0.2.1"}
	b.put(first, label(service("books"), "a", "b"))
	before := b.View()

	tests := map[string]*weirv1.Resource{
		"the same again":           label(service("books"), "a", "b"),
		"with a status":            withStatus(label(service("books"), "a", "b")),
		"with what is Weir's":      proto.Clone(b.get(ref("Service", "books"))).(*weirv1.Resource),
		"a plugin without status":  plugin("stamp", digest),
		"at the revision it is at": at(before.Revision(), label(service("books"), "a", "b")),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			response := b.put(in)
			if response.Revision != before.Revision() || response.Results[0].Outcome != weirv1.ApplyResult_UNCHANGED {
				t.Errorf("response is %v", response)
			}
			was, _ := before.Get(resource.Of(in))
			requireSame(t, was, b.get(resource.Of(in)))
		})
	}
	for name, in := range map[string]*weirv1.Resource{
		"a label":       label(service("books"), "a", "c"),
		"no label":      service("books"),
		"another spec":  service("books", "v1"),
		"an annotation": annotate(service("books", "v1")),
	} {
		t.Run(name, func(t *testing.T) {
			if response := b.put(in); response.Results[0].Outcome != weirv1.ApplyResult_UPDATED {
				t.Errorf("response is %v", response)
			}
		})
	}
}

func withStatus(r *weirv1.Resource) *weirv1.Resource {
	r.GetService().Status = &weirv1.ServiceStatus{Conditions: []*weirv1.Condition{{Type: "x"}}}
	return r
}

func annotate(r *weirv1.Resource) *weirv1.Resource {
	resource.Meta(r).Annotations = map[string]string{"why": "because"}
	return r
}

func TestPluginKeepsTheStatusOfItsAdmission(t *testing.T) {
	b := open(t)
	p := plugin("stamp", b.push("module"))
	p.GetPlugin().Status = &weirv1.PluginStatus{Abi: "0.2.1", SizeBytes: 6}
	b.put(p)
	requireSame(t, p.GetPlugin().Status, b.get(ref("Plugin", "stamp")).GetPlugin().Status)
}

func TestRevisionIsAPrecondition(t *testing.T) {
	tests := map[string]struct {
		put  *weirv1.Resource
		want []string
	}{
		"the one it is at": {put: at(1, service("books", "v1"))},
		"none":             {put: service("books", "v1")},
		"an older one": {put: at(7, service("books", "v1")),
			want: []string{`CONFLICT Service books: metadata.revision: revision 7 was expected, but it is at 1: someone has changed it`}},
		"of what is not there": {put: at(1, service("paper")),
			want: []string{`CONFLICT Service paper: metadata.revision: revision 1 was expected, but it is not there`}},
		"an older one of what would not change": {put: at(7, service("books"))},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			b.put(service("books"))
			result := b.entry(transact([]*weirv1.Resource{test.put}))[0]
			if test.want == nil {
				accepted(t, result)
				return
			}
			requireRefused(t, result, test.want...)
		})
	}
}

func TestChangesThatShareAnEntryHaveRevisionsOfTheirOwn(t *testing.T) {
	b := open(t)
	b.put(service("books"))
	b.index = 9
	results := b.entry(
		transact([]*weirv1.Resource{at(1, service("books", "v1"))}),
		transact([]*weirv1.Resource{at(1, service("books", "v2"))}),
		transact([]*weirv1.Resource{service("books", "v3")}),
		transact([]*weirv1.Resource{service("books", "v3")}),
	)
	if got := accepted(t, results[0]).Revision; got != 10 {
		t.Errorf("the first has revision %d, want the index, 10", got)
	}
	requireRefused(t, results[1], `CONFLICT Service books: metadata.revision: revision 1 was expected, but it is at 10: someone has changed it`)
	if got := accepted(t, results[2]).Revision; got != 11 {
		t.Errorf("the third has revision %d, want 11", got)
	}
	if got := accepted(t, results[3]).Revision; got != 11 {
		t.Errorf("one that changes nothing has revision %d, want 11", got)
	}
	// The caller of the first cannot overwrite what the third has written.
	requireRefused(t, b.entry(transact([]*weirv1.Resource{at(10, service("books"))}))[0],
		`CONFLICT Service books: metadata.revision: revision 10 was expected, but it is at 11: someone has changed it`)
	// The next index is taken; the revision goes on above it.
	if got := b.put(service("books")).Revision; got != 12 {
		t.Errorf("the next has revision %d, want 12", got)
	}
	b.index = 99
	if got := b.put(service("books", "v4")).Revision; got != 100 {
		t.Errorf("a later one has revision %d, want its index, 100", got)
	}
}

func TestTransactIsAllOrNothing(t *testing.T) {
	b := open(t)
	b.put(service("books"))
	before := b.View()
	result := b.entry(transact([]*weirv1.Resource{service("paper"), at(9, service("books", "v1")), route("r", "nowhere")}, ref("Service", "ink")))[0]
	requireRefused(t, result,
		`CONFLICT Service books: metadata.revision: revision 9 was expected, but it is at 1: someone has changed it`,
		`NOT_FOUND Service ink: it is not there`,
		`NOT_FOUND Route r: spec.parentRefs[0].name: there is no Gateway nowhere`,
	)
	b.requireGone(ref("Service", "paper"))
	if b.View().Revision() != before.Revision() || b.View().Len() != 1 {
		t.Error("a refused change has changed something")
	}
}

func TestTransactThatMakesNoSense(t *testing.T) {
	tests := map[string]struct {
		command *weirv1.Command
		want    string
	}{
		"a resource of no kind": {transact([]*weirv1.Resource{{}}), `INVALID  : metadata: a resource has a kind and a name, of at most 512 bytes each`},
		"a resource of no name": {transact([]*weirv1.Resource{service("")}), `INVALID Service : metadata: a resource has a kind and a name, of at most 512 bytes each`},
		"a zero byte in a name": {transact([]*weirv1.Resource{service("a\x00b")}), "INVALID Service a\x00b: metadata: a resource has a kind and a name, of at most 512 bytes each"},
		"the same resource twice": {transact([]*weirv1.Resource{service("a"), service("a", "v1")}),
			`INVALID Service a: it stands twice in one change`},
		"put and deleted": {transact([]*weirv1.Resource{service("books", "v1")}, ref("Service", "books")),
			`INVALID Service books: it stands twice in one change`},
		"deleted, but of no such kind": {transact(nil, ref("Serviec", "books")), `NOT_FOUND Serviec books: it is not there`},
		"deleted, but misspelt":        {transact(nil, ref("Service", "bokos")), `NOT_FOUND Service bokos: it is not there; did you mean "books"?`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			b.put(service("books"))
			requireRefused(t, b.entry(test.command)[0], test.want)
		})
	}
}

func TestTenantsHaveNamesOfTheirOwn(t *testing.T) {
	b := open(t)
	other := service("books", "v1")
	resource.Meta(other).Tenant = "press"
	b.put(service("books"), other)
	if n := len(b.get(resource.Ref{Kind: "Service", Tenant: "press", Name: "books"}).GetService().Spec.Subsets); n != 1 {
		t.Errorf("the other tenant's service has %d subsets, want 1", n)
	}
	stranger := route("r", "public", to("books", ""))
	resource.Meta(stranger).Tenant = "third"
	requireRefused(t, b.entry(transact([]*weirv1.Resource{stranger}))[0],
		`NOT_FOUND Route third/r: spec.parentRefs[0].name: there is no Gateway third/public`,
		`NOT_FOUND Route third/r: spec.rules[0].backendRefs[0].name: there is no Service third/books`)
}

func TestDryRunAnswersAsApplyWould(t *testing.T) {
	b := open(t)
	b.put(service("books"), service("paper"))
	commands := map[string]*weirv1.Command{
		"a change":     transact([]*weirv1.Resource{service("books", "v1"), service("ink"), service("paper")}, ref("Service", "paper")),
		"what is fine": transact([]*weirv1.Resource{service("books", "v1"), service("ink"), gateway("public", "http")}, ref("Service", "paper")),
		"nothing new":  transact([]*weirv1.Resource{service("books")}),
		"a refusal":    transact([]*weirv1.Resource{route("r", "public", to("bokos", ""))}),
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			before := b.View()
			given := proto.Clone(command.GetTransact())
			var would any
			response, err := b.DryRun(command.GetTransact(), b.now)
			if would = response; err != nil {
				var refused *RefusedError
				if !errors.As(err, &refused) {
					t.Fatal(err)
				}
				would = refused
			}
			requireSame(t, given, command.GetTransact())
			if b.View() != before {
				t.Fatal("a dry run has changed the view")
			}
			twin := open(t)
			twin.put(service("books"), service("paper"))
			requireSame(t, would, twin.entry(command)[0])
		})
	}
}

// Every kind is stored, also those that Weir says nothing of.
func TestEveryKindIsStored(t *testing.T) {
	b := open(t)
	for _, kind := range resource.Kinds() {
		r, body, _ := resource.New(kind)
		fields := body.ProtoReflect().Descriptor().Fields()
		body.ProtoReflect().Set(fields.ByName("metadata"), protoreflect.ValueOfMessage((&weirv1.Metadata{Name: "a"}).ProtoReflect()))
		b.entry(&weirv1.Command{Action: &weirv1.Command_Transact{Transact: &weirv1.Transact{Puts: []*weirv1.Resource{r}}}})
		resource.ClearStatus(r)
		if status := fields.ByName("status"); status != nil && body.ProtoReflect().Has(status) {
			t.Errorf("a %s has a status", kind)
		}
	}
	b.put(resource.Wrap(&weirv1.App{Metadata: &weirv1.Metadata{Name: "demo"}}))
}

// What must be new is refused where it is there, the same or not, and nothing is changed.
func TestCreate(t *testing.T) {
	b := open(t)
	response := accepted(t, b.entry(create(service("books")))[0])
	if response.Results[0].Outcome != weirv1.ApplyResult_CREATED {
		t.Errorf("got %v", response)
	}
	was := b.get(ref("Service", "books"))
	for _, again := range []*weirv1.Resource{service("books"), service("books", "v1")} {
		requireRefused(t, b.entry(create(service("ink"), again))[0], "ALREADY_EXISTS Service books: metadata.name: it is there already")
	}
	requireRefused(t, b.entry(create(service("ink"), service("ink")))[0], "INVALID Service ink: it stands twice in one change")
	requireSame(t, was, b.get(ref("Service", "books")))
	if b.View().Len() != 1 {
		t.Error("something else was stored")
	}
	accepted(t, b.entry(transact(nil, ref("Service", "books")))[0])
	accepted(t, b.entry(create(service("books", "v1")))[0])
}
