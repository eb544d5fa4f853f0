package store

import (
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// DryRun says what a Transact would come to at a time if it were applied now.
// It stores nothing, and the revisions it names are not given out. The error
// is a *RefusedError.
func (s *Store) DryRun(t *weirv1.Transact, at time.Time) (*weirv1.ApplyResponse, error) {
	d := newDraft(s.View(), nil)
	p := d.plan(proto.Clone(t).(*weirv1.Transact), d.revision+1, timestamppb.New(at))
	if len(p.violations) > 0 {
		return nil, &RefusedError{Violations: p.violations}
	}
	return p.response(), nil
}

func (d *draft) transact(t *weirv1.Transact, index uint64, at *timestamppb.Timestamp) (*weirv1.ApplyResponse, *RefusedError, error) {
	p := d.plan(t, index, at)
	if len(p.violations) > 0 {
		return nil, &RefusedError{Violations: p.violations}, nil
	}
	response := p.response()
	return response, nil, p.commit()
}

// checkNew refuses puts of what is there already, the same or not.
func (d *draft) checkNew(t *weirv1.Transact) *RefusedError {
	var violations []Violation
	for _, r := range t.GetPuts() {
		ref := resource.Of(r)
		if _, found := d.resources.Get(resourceKey(ref)); found {
			violations = append(violations, Violation{Ref: ref, Field: "metadata.name", Reason: AlreadyExists, Message: "it is there already"})
		}
	}
	if len(violations) > 0 {
		return &RefusedError{Violations: violations}
	}
	return nil
}

// plan is what a Transact would do: every change with what was before, and all
// that speaks against it. Making one writes nothing.
type plan struct {
	*draft
	at         *timestamppb.Timestamp
	next       uint64 // the revision, should anything change
	changes    []*change
	byRef      map[resource.Ref]*change // nil while there are few: see change
	violations []Violation
	suggested  int
}

type change struct {
	ref resource.Ref
	// old is what was, nil for what is new; now is what will be, nil for what
	// is deleted. They are the same where nothing changes.
	old, now *weirv1.Resource
	outcome  weirv1.ApplyResult_Outcome
}

func (c *change) changed() bool { return c.outcome != weirv1.ApplyResult_UNCHANGED }

// plan takes over the resources of the Transact.
func (d *draft) plan(t *weirv1.Transact, index uint64, at *timestamppb.Timestamp) *plan {
	p := &plan{draft: d, at: at, next: max(index, d.revision+1)}
	for _, r := range t.GetPuts() {
		p.planPut(r)
	}
	for _, m := range t.GetDeletes() {
		p.planDelete(resource.RefOf(m))
	}
	p.checkReferences()
	p.checkReferrers()
	return p
}

func (p *plan) refuse(ref resource.Ref, field resource.Path, reason Reason, format string, args ...any) {
	p.violations = append(p.violations, Violation{Ref: ref, Field: string(field), Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// add enters a change, unless the resource has one already.
func (p *plan) add(c *change) {
	if p.change(c.ref) != nil {
		p.refuse(c.ref, "", Invalid, "it stands twice in one change")
		return
	}
	p.changes = append(p.changes, c)
	if p.byRef != nil {
		p.byRef[c.ref] = c
	}
}

// few changes are gone through faster than a map of them is made.
const few = 8

// change is what is planned for a resource, nil if nothing is.
func (p *plan) change(ref resource.Ref) *change {
	if len(p.changes) > few && p.byRef == nil {
		p.byRef = map[resource.Ref]*change{}
		for _, c := range p.changes {
			p.byRef[c.ref] = c
		}
	}
	if p.byRef != nil {
		return p.byRef[ref]
	}
	for _, c := range p.changes {
		if c.ref == ref {
			return c
		}
	}
	return nil
}

func (p *plan) planPut(r *weirv1.Resource) {
	ref := resource.Of(r)
	if !validPart(ref.Kind) || !validPart(ref.Tenant) || !validPart(ref.Name) {
		p.refuse(ref, "metadata", Invalid, "a resource has a kind and a name, of at most %d bytes each", longestPart)
		return
	}
	old, _ := p.resources.Get(resourceKey(ref))
	c := &change{ref: ref, old: old, now: r, outcome: weirv1.ApplyResult_UPDATED}
	switch {
	case old == nil:
		c.outcome = weirv1.ApplyResult_CREATED
	case same(old, r):
		c.now, c.outcome = old, weirv1.ApplyResult_UNCHANGED
	}
	if c.changed() {
		// What would change nothing overwrites nobody: applying a file again, or
		// again because an answer was lost, is no conflict with oneself.
		p.checkRevision(ref, resource.Meta(r).GetRevision(), old)
		p.stamp(r, ref, old)
	}
	p.add(c)
}

func (p *plan) checkRevision(ref resource.Ref, want uint64, old *weirv1.Resource) {
	switch is := resource.Meta(old).GetRevision(); {
	case want == 0 || want == is:
	case old == nil:
		p.refuse(ref, "metadata.revision", Conflict, "revision %d was expected, but it is not there", want)
	default:
		p.refuse(ref, "metadata.revision", Conflict, "revision %d was expected, but it is at %d: someone has changed it", want, is)
	}
}

func (p *plan) planDelete(ref resource.Ref) {
	old, found := p.resources.Get(resourceKey(ref))
	if !found {
		p.refuse(ref, "", NotFound, "it is not there%s", p.suggestion(ref))
		return
	}
	p.add(&change{ref: ref, old: old, outcome: weirv1.ApplyResult_DELETED})
}

// same: spec, labels and annotations are equal, and the material that Weir makes
// of a Certificate, and what became of a Plugin's canary. The rest is Weir's to write.
func same(a, b *weirv1.Resource) bool {
	am, bm := resource.Meta(a), resource.Meta(b)
	return maps.Equal(am.GetLabels(), bm.GetLabels()) &&
		maps.Equal(am.GetAnnotations(), bm.GetAnnotations()) &&
		proto.Equal(spec(a), spec(b)) &&
		proto.Equal(a.GetCertificate().GetMaterial(), b.GetCertificate().GetMaterial()) &&
		proto.Equal(a.GetPlugin().GetStatus().GetTrial(), b.GetPlugin().GetStatus().GetTrial())
}

func spec(r *weirv1.Resource) proto.Message {
	body := resource.Body(r).ProtoReflect()
	return body.Get(fieldOf(body, "spec")).Message().Interface()
}

func fieldOf(m protoreflect.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

// stamp writes what is Weir's to write into a resource that was put.
func (p *plan) stamp(r *weirv1.Resource, ref resource.Ref, old *weirv1.Resource) {
	body := resource.Body(r).ProtoReflect()
	body.Set(fieldOf(body, "api_version"), protoreflect.ValueOfString(resource.APIVersion))
	body.Set(fieldOf(body, "kind"), protoreflect.ValueOfString(ref.Kind))
	if ref.Kind != resource.KindPlugin && ref.Kind != resource.KindCertificate {
		// A Plugin's status is what admission found in its module, a Certificate's
		// what it says.
		resource.ClearStatus(r)
	}
	meta := resource.Meta(r)
	meta.Tenant = ref.Tenant
	meta.Revision, meta.UpdateTime = p.next, p.at
	meta.CreateRevision, meta.CreateTime = p.next, p.at
	if old != nil {
		was := resource.Meta(old)
		meta.CreateRevision, meta.CreateTime = was.GetCreateRevision(), was.GetCreateTime()
	}
}

// revision is the plan's own if it changes anything, else the present one.
func (p *plan) revision() uint64 {
	for _, c := range p.changes {
		if c.changed() {
			return p.next
		}
	}
	return p.draft.revision
}

func (p *plan) response() *weirv1.ApplyResponse {
	response := &weirv1.ApplyResponse{Revision: p.revision()}
	for _, c := range p.changes {
		response.Results = append(response.Results, &weirv1.ApplyResult{Ref: c.ref.Proto(), Outcome: c.outcome, Resource: c.now})
	}
	return response
}

// commit makes the plan the draft's state.
func (p *plan) commit() error {
	event := &Event{Previous: p.draft.revision, Revision: p.revision()}
	for _, c := range p.changes {
		if !c.changed() {
			continue
		}
		p.write(c)
		if c.now != nil {
			event.Puts = append(event.Puts, c.now)
		} else {
			event.Deletes = append(event.Deletes, c.ref)
		}
	}
	if event.Revision != event.Previous {
		p.draft.revision = event.Revision
		p.events = append(p.events, event)
	}
	p.dropLeases()
	return p.collect()
}

func (p *plan) write(c *change) {
	if c.old != nil {
		for ref := range resource.References(c.old) {
			p.referrers.Delete(referrerKey(ref.To, c.ref))
		}
	}
	key := resourceKey(c.ref)
	if c.now == nil {
		p.resources.Delete(key)
		p.drop(bucketResources, key)
		return
	}
	for ref := range resource.References(c.now) {
		p.referrers.Insert(referrerKey(ref.To, c.ref), c.ref)
	}
	p.resources.Insert(key, c.now)
	p.writes = append(p.writes, write{bucket: bucketResources, key: key, resource: c.now})
}

// collect drops the blobs that only what was before referred to.
func (p *plan) collect() error {
	for _, c := range p.changes {
		if c.old == nil || !c.changed() {
			continue
		}
		for ref := range resource.References(c.old) {
			if ref.To.Kind != resource.KindBlob || p.referredTo(ref.To) {
				continue
			}
			if err := p.dropBlob(ref.To.Name); err != nil {
				return fmt.Errorf("drop %s: %w", ref.To, err)
			}
		}
	}
	return nil
}
