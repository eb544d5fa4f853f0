// Package admintest is what tests of the admin API and of its clients put in
// the place of a cluster: declarations in memory, proxies that tests steer.
//
// It decides a transaction as a cluster does as far as callers can tell:
// preconditions, references to nothing, unchanged resources. It is one member,
// it forgets when it ends, and nothing in it runs by itself.
package admintest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Memory is the Store and the Cluster of an admin.Config.
type Memory struct {
	mu       sync.Mutex
	revision uint64
	byRef    map[resource.Ref]*weirv1.Resource
	blobs    map[string][]byte
	partial  map[string][]byte
	log      []admin.Change
	changed  chan struct{}
	commands []*weirv1.Command
	fail     error
}

// NewMemory returns one that holds nothing.
func NewMemory() *Memory {
	return &Memory{revision: 1, byRef: map[resource.Ref]*weirv1.Resource{}, blobs: map[string][]byte{}, partial: map[string][]byte{}, changed: make(chan struct{})}
}

// Fail lets everything that needs the cluster fail from now on; nil mends it.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// Commands returns what was proposed, in order.
func (m *Memory) Commands() []*weirv1.Command {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// Forget drops the history that watches resume from.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = nil
}

// Sync implements admin.Cluster.
func (m *Memory) Sync(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fail
}

// Status implements admin.Cluster.
func (m *Memory) Status(_ context.Context, s *weirv1.GetStatusResponse) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Leader, s.TrustDomain, s.Term, s.CommitIndex, s.AppliedIndex = "one", "weir.test", 1, m.revision, m.revision
	s.Members = []*weirv1.Member{{Name: "one", Role: weirv1.Member_VOTER, Address: "127.0.0.1:7400"}}
	return nil
}

// Get implements admin.Store.
func (m *Memory) Get(ref resource.Ref) (*weirv1.Resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byRef[ref], nil
}

// List implements admin.Store.
func (m *Memory) List(kind, tenant string) ([]*weirv1.Resource, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*weirv1.Resource
	for ref, r := range m.byRef {
		if (kind == "" || kind == ref.Kind) && (tenant == "*" || tenant == ref.Tenant) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *weirv1.Resource) int { return resource.Of(a).Compare(resource.Of(b)) })
	return list, m.revision, nil
}

// Blob implements admin.Store.
func (m *Memory) Blob(digest string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.blobs[digest], nil
}

// DryRun implements admin.Store.
func (m *Memory) DryRun(tx *weirv1.Transact) (*weirv1.ApplyResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, _, err := m.decide(tx)
	return done, err
}

// Propose implements admin.Cluster.
func (m *Memory) Propose(_ context.Context, cmd *weirv1.Command) (*weirv1.ApplyResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	m.commands = append(m.commands, proto.CloneOf(cmd))
	switch action := cmd.GetAction().(type) {
	case *weirv1.Command_Transact:
		return m.transact(action.Transact)
	case *weirv1.Command_PutBlobChunk:
		return nil, m.putChunk(action.PutBlobChunk)
	}
	return nil, fmt.Errorf("propose: %T is not known here", cmd.GetAction())
}

func (m *Memory) transact(tx *weirv1.Transact) (*weirv1.ApplyResponse, error) {
	done, change, err := m.decide(tx)
	if err != nil || change.Revision == m.revision {
		return done, err
	}
	m.revision = change.Revision
	for _, ref := range change.Deletes {
		delete(m.byRef, ref)
	}
	for _, r := range change.Puts {
		m.byRef[resource.Of(r)] = r
	}
	m.log = append(m.log, change)
	close(m.changed)
	m.changed = make(chan struct{})
	return done, nil
}

func (m *Memory) putChunk(c *weirv1.PutBlobChunk) error {
	if m.blobs[c.GetDigest()] != nil {
		return nil
	}
	if have := uint64(len(m.partial[c.GetDigest()])); have != c.GetOffset() {
		return &admin.Refused{Violations: []admin.Violation{{Message: fmt.Sprintf("blob is at %d, not at %d", have, c.GetOffset())}}}
	}
	content := append(m.partial[c.GetDigest()], c.GetChunk()...)
	m.partial[c.GetDigest()] = content
	if uint64(len(content)) < c.GetSize() {
		return nil
	}
	if sum := sha256.Sum256(content); "sha256:"+hex.EncodeToString(sum[:]) != c.GetDigest() {
		return &admin.Refused{Violations: []admin.Violation{{Message: "blob does not have its digest"}}}
	}
	m.blobs[c.GetDigest()] = content
	delete(m.partial, c.GetDigest())
	return nil
}

// decide is the outcome of a transaction, and what it would change. The
// revision of the change is the present one when there is none.
func (m *Memory) decide(tx *weirv1.Transact) (*weirv1.ApplyResponse, admin.Change, error) {
	next := m.revision + 1
	change := admin.Change{Revision: next}
	done := &weirv1.ApplyResponse{}
	var refused []admin.Violation
	after := map[resource.Ref]*weirv1.Resource{}
	for ref, r := range m.byRef {
		after[ref] = r
	}
	for _, r := range tx.GetPuts() {
		ref := resource.Of(r)
		result := &weirv1.ApplyResult{Ref: ref.Proto()}
		stored, outcome, conflict := put(m.byRef[ref], r, next)
		if conflict != nil {
			refused = append(refused, *conflict)
		}
		result.Outcome, result.Resource = outcome, stored
		if outcome != weirv1.ApplyResult_UNCHANGED {
			change.Puts = append(change.Puts, stored)
		}
		after[ref] = stored
		done.Results = append(done.Results, result)
	}
	for _, d := range tx.GetDeletes() {
		ref := resource.RefOf(d)
		if m.byRef[ref] == nil {
			refused = append(refused, admin.Violation{Ref: ref, Reason: admin.ReasonNotFound, Message: "there is no such resource"})
		}
		delete(after, ref)
		change.Deletes = append(change.Deletes, ref)
		done.Results = append(done.Results, &weirv1.ApplyResult{Ref: ref.Proto(), Outcome: weirv1.ApplyResult_DELETED})
	}
	if refused = append(refused, m.dangling(tx, after)...); len(refused) > 0 {
		return nil, change, &admin.Refused{Violations: refused}
	}
	if len(change.Puts)+len(change.Deletes) == 0 {
		change.Revision = m.revision
	}
	done.Revision = change.Revision
	return done, change, nil
}

// put is what a resource becomes when it is stored.
func put(old, r *weirv1.Resource, revision uint64) (*weirv1.Resource, weirv1.ApplyResult_Outcome, *admin.Violation) {
	stored := proto.CloneOf(r)
	meta, was := resource.Meta(stored), resource.Meta(old)
	if want := meta.GetRevision(); want != 0 && want != was.GetRevision() {
		return stored, weirv1.ApplyResult_UNCHANGED, &admin.Violation{Ref: resource.Of(r), Field: "metadata.revision", Reason: admin.ReasonConflict,
			Message: fmt.Sprintf("the stored revision is %d, not %d", was.GetRevision(), want)}
	}
	meta.Revision, meta.CreateRevision = was.GetRevision(), was.GetCreateRevision()
	meta.CreateTime, meta.UpdateTime = was.GetCreateTime(), was.GetUpdateTime()
	switch {
	case proto.Equal(stored, old):
		return old, weirv1.ApplyResult_UNCHANGED, nil
	case old == nil:
		meta.Revision, meta.CreateRevision = revision, revision
		return stored, weirv1.ApplyResult_CREATED, nil
	}
	meta.Revision = revision
	return stored, weirv1.ApplyResult_UPDATED, nil
}

// dangling lists references to nothing in the outcome of a transaction.
func (m *Memory) dangling(tx *weirv1.Transact, after map[resource.Ref]*weirv1.Resource) []admin.Violation {
	deleted := map[resource.Ref]bool{}
	for _, d := range tx.GetDeletes() {
		deleted[resource.RefOf(d)] = true
	}
	var found []admin.Violation
	for ref, r := range after {
		for reference := range resource.References(r) {
			switch {
			case deleted[reference.To]:
				found = append(found, admin.Violation{Ref: reference.To, Reason: admin.ReasonInUse,
					Message: fmt.Sprintf("is still used by %s (%s)", ref, reference.Field)})
			case reference.To.Kind == resource.KindBlob && m.blobs[reference.To.Name] == nil,
				reference.To.Kind != resource.KindBlob && after[reference.To] == nil:
				found = append(found, admin.Violation{Ref: ref, Field: string(reference.Field), Reason: admin.ReasonInvalid,
					Message: fmt.Sprintf("there is no %s", reference.To)})
			}
		}
	}
	slices.SortFunc(found, func(a, b admin.Violation) int { return a.Ref.Compare(b.Ref) })
	return found
}

// Watch implements admin.Store.
func (m *Memory) Watch(ctx context.Context, after uint64) iter.Seq2[admin.Change, error] {
	return func(yield func(admin.Change, error) bool) {
		for {
			m.mu.Lock()
			changes, changed := m.since(after), m.changed
			m.mu.Unlock()
			for _, c := range changes {
				if !yield(c, nil) {
					return
				}
				after = max(c.Revision, 1)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (m *Memory) since(after uint64) []admin.Change {
	if after != 0 && after >= m.revision {
		return nil
	}
	for i, c := range m.log {
		if c.Revision == after+1 && after != 0 {
			return slices.Clone(m.log[i:])
		}
	}
	reset := admin.Change{Revision: m.revision, Reset: true}
	for _, r := range m.byRef {
		reset.Puts = append(reset.Puts, r)
	}
	slices.SortFunc(reset.Puts, func(a, b *weirv1.Resource) int { return resource.Of(a).Compare(resource.Of(b)) })
	return []admin.Change{reset}
}

// Proxies is the Proxies of an admin.Config.
type Proxies struct {
	mu      sync.Mutex
	list    []*weirv1.ProxyStatus
	changed chan struct{}
}

// NewProxies returns none.
func NewProxies() *Proxies { return &Proxies{changed: make(chan struct{})} }

// Set says what the proxies are from now on.
func (p *Proxies) Set(list ...*weirv1.ProxyStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = list
	close(p.changed)
	p.changed = make(chan struct{})
}

// Statuses implements admin.Proxies.
func (p *Proxies) Statuses() ([]*weirv1.ProxyStatus, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list, p.changed
}

// Admission admits what begins like a WASM module.
type Admission struct{}

// Admit implements admin.Admission.
func (Admission) Admit(_ context.Context, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	if len(module) < 4 || string(module[:4]) != "\x00asm" {
		return nil, errors.New("is not a WASM module: it does not begin with \\0asm")
	}
	if limits.GetMemoryBytes() == 1<<16 {
		return nil, errors.New("asks for 2 pages of memory, more than its limit of 65536 bytes")
	}
	return &weirv1.PluginStatus{SizeBytes: uint64(len(module)), Abi: "0.2.1"}, nil
}

// JoinTokens makes a token that says what it is for.
type JoinTokens struct{}

// Create implements admin.JoinTokens.
func (JoinTokens) Create(_ context.Context, role weirv1.CreateJoinTokenRequest_Role, ttl time.Duration, _ string) (string, time.Time, error) {
	return fmt.Sprintf("join-%s-%s", role, ttl), time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC).Add(ttl), nil
}

// Tokens knows bearers by their token.
type Tokens map[string]string

// Authenticate implements admin.Authenticator.
func (t Tokens) Authenticate(_ context.Context, token string) (string, error) {
	if actor, ok := t[token]; ok {
		return actor, nil
	}
	return "", fmt.Errorf("authenticate: %w", admin.ErrNoSuchToken)
}
