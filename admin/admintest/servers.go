package admintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// Servers is the Servers of an admin.Config: members by name, of which the first
// one is asked and leads. A backup is a snapshot of the cluster's store.
type Servers struct {
	cluster *Cluster
	proxies *Proxies

	mu     sync.Mutex
	status *weirv1.ClusterStatus
	checks []*weirv1.DoctorCheck
}

// NewServers returns members that all are well.
func NewServers(cluster *Cluster, proxies *Proxies, names ...string) *Servers {
	s := &weirv1.ClusterStatus{Member: names[0], Leader: names[0], Term: 3, TrustDomain: "weir.test", Majority: true,
		Voters: uint32(len(names)), ReachableVoters: uint32(len(names)), Staleness: durationpb.New(0)}
	for i, name := range names {
		m := &weirv1.ClusterMember{Name: name, Role: weirv1.Member_VOTER, State: weirv1.ClusterMember_FOLLOWER,
			Address: fmt.Sprintf("10.0.0.%d:7400", i+1), LastContact: durationpb.New(40 * time.Millisecond), Version: "v1.2.3",
			LogSyncP50: durationpb.New(160 * time.Microsecond), LogSyncP99: durationpb.New(3300 * time.Microsecond), Streams: uint32(i)}
		if i == 0 {
			m.State, m.LastContact = weirv1.ClusterMember_LEADER, nil
		}
		s.Members = append(s.Members, m)
	}
	return &Servers{cluster: cluster, proxies: proxies, status: s}
}

// Set changes what is known of the servers.
func (s *Servers) Set(change func(*weirv1.ClusterStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.status)
}

// Lose lets the first of the members see nothing of the others for some time.
func (s *Servers) Lose(since time.Duration) {
	s.Set(func(c *weirv1.ClusterStatus) {
		c.Leader, c.Majority, c.ReachableVoters, c.Staleness = "", false, 1, durationpb.New(since)
		for _, m := range c.GetMembers() {
			m.State = weirv1.ClusterMember_UNREACHABLE
			if m.GetName() == c.GetMember() {
				m.State = weirv1.ClusterMember_FOLLOWER
			}
		}
	})
	s.cluster.Fail(fmt.Errorf("propose: %w", admin.ErrUnavailable))
}

// Find sets what Doctor finds.
func (s *Servers) Find(checks ...*weirv1.DoctorCheck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks = checks
}

// Status implements admin.Servers.
func (s *Servers) Status(context.Context) (*weirv1.ClusterStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := proto.CloneOf(s.status)
	status.CommitIndex, status.AppliedIndex = s.cluster.store.Applied(), s.cluster.store.Applied()
	status.Revision = s.cluster.store.View().Revision()
	return status, nil
}

// Doctor implements admin.Servers.
func (s *Servers) Doctor(context.Context) ([]*weirv1.DoctorCheck, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks, nil
}

// Remove implements admin.Servers: two of the members must stay.
func (s *Servers) Remove(_ context.Context, name string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(name)
	if at < 0 {
		return refuse(admin.ReasonNotFound, "there is no member %q", name)
	}
	if len(s.status.Members) <= 2 && !force {
		return refuse(admin.ReasonState, "without %s, 1 of 2 members would be left, which is no majority", name)
	}
	s.status.Members = slices.Delete(s.status.Members, at, at+1)
	s.status.Voters--
	s.status.ReachableVoters--
	return nil
}

// RemoveProxy implements admin.Servers.
func (s *Servers) RemoveProxy(_ context.Context, name string) error {
	all, _ := s.proxies.Statuses()
	left := slices.DeleteFunc(slices.Clone(all), func(p *weirv1.ProxyStatus) bool { return p.GetName() == name })
	if len(left) == len(all) {
		return refuse(admin.ReasonNotFound, "there is no edge or sidecar %q", name)
	}
	s.proxies.Set(left...)
	return nil
}

// Transfer implements admin.Servers: by default the last member leads.
func (s *Servers) Transfer(_ context.Context, to string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if to == "" {
		to = s.status.Members[len(s.status.Members)-1].GetName()
	}
	if s.find(to) < 0 {
		return "", refuse(admin.ReasonNotFound, "there is no member %q", to)
	}
	s.status.Leader = to
	return to, nil
}

func (s *Servers) find(name string) int {
	return slices.IndexFunc(s.status.Members, func(m *weirv1.ClusterMember) bool { return m.GetName() == name })
}

// Backup implements admin.Servers.
func (s *Servers) Backup(context.Context, bool) (io.ReadCloser, uint64, error) {
	write, release, err := s.cluster.store.Snapshot()
	if err != nil {
		return nil, 0, err
	}
	defer release()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return nil, 0, err
	}
	return io.NopCloser(&b), s.cluster.store.View().Revision(), nil
}

// Restore implements admin.Servers.
// CheckBackup restores the content to a store of its own.
func (s *Servers) CheckBackup(content io.Reader) (err error) {
	dir, err := os.MkdirTemp("", "weir-check-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	scratch, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	if err := scratch.Restore(content); err != nil {
		return refuse(admin.ReasonInvalid, "the backup is damaged: %v", err)
	}
	return nil
}

func (s *Servers) Restore(_ context.Context, content io.Reader) (uint64, error) {
	if err := s.cluster.store.Restore(content); err != nil {
		return 0, refuse(admin.ReasonInvalid, "the backup is damaged: %v", err)
	}
	return s.cluster.store.View().Revision(), nil
}

func refuse(reason admin.Reason, format string, args ...any) error {
	return &admin.Refused{Violations: []admin.Violation{{Reason: reason, Message: fmt.Sprintf(format, args...)}}}
}

// at is when everything happens here.
var at = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// JoinTokens makes tokens that say what they are for.
type JoinTokens struct {
	mu     sync.Mutex
	tokens []*weirv1.JoinToken
}

// Create implements admin.JoinTokens.
func (j *JoinTokens) Create(_ context.Context, n admin.NewJoinToken) (admin.JoinToken, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	made := admin.JoinToken{Token: fmt.Sprintf("join-%s-%s", n.Role, n.TTL), ID: fmt.Sprintf("id%d", len(j.tokens)+1), Expires: at.Add(n.TTL)}
	if n.Uses > 0 {
		made.Token += fmt.Sprintf("-%d", n.Uses)
	}
	j.tokens = append(j.tokens, &weirv1.JoinToken{Id: made.ID, Role: n.Role, Uses: n.Uses, CreatedBy: n.Actor,
		CreateTime: timestamppb.New(at), ExpireTime: timestamppb.New(made.Expires)})
	return made, nil
}

// List implements admin.JoinTokens.
func (j *JoinTokens) List(context.Context) ([]*weirv1.JoinToken, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.tokens), nil
}

// Revoke implements admin.JoinTokens.
func (j *JoinTokens) Revoke(_ context.Context, id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	was := len(j.tokens)
	j.tokens = slices.DeleteFunc(j.tokens, func(t *weirv1.JoinToken) bool { return t.GetId() == id })
	if len(j.tokens) == was {
		return refuse(admin.ReasonNotFound, "there is no join token %q", id)
	}
	return nil
}

// Keys is the Keys of an admin.Config: each rotation adds a key, and is over
// when the next begins.
type Keys struct {
	mu        sync.Mutex
	keys      []*weirv1.ClusterKey
	roots     []*weirv1.Root
	rotations []*weirv1.Rotation
}

// NewKeys returns one key and one root.
func NewKeys() *Keys {
	k := new(Keys)
	k.keys = []*weirv1.ClusterKey{{Id: "key1", CreateTime: timestamppb.New(at), State: weirv1.ClusterKey_SEALING}}
	k.roots = []*weirv1.Root{{Fingerprint: "root1", NotBefore: timestamppb.New(at), NotAfter: timestamppb.New(at.AddDate(10, 0, 0)), State: weirv1.Root_SIGNING}}
	return k
}

// List implements admin.Keys.
func (k *Keys) List(context.Context) (*weirv1.ClusterKeys, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return proto.CloneOf(&weirv1.ClusterKeys{Keys: k.keys, Roots: k.roots, Rotations: k.rotations}), nil
}

// RotateKey implements admin.Keys.
func (k *Keys) RotateKey(context.Context) (*weirv1.Rotation, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	from := k.keys[0]
	to := &weirv1.ClusterKey{Id: fmt.Sprintf("key%d", len(k.keys)+1), CreateTime: timestamppb.New(at), State: weirv1.ClusterKey_SEALING}
	from.State = weirv1.ClusterKey_OPENING
	k.keys = slices.Insert(k.keys, 0, to)
	return k.rotate(weirv1.Rotation_KEY, from.GetId(), to.GetId(), "spread the new key"), nil
}

// RotateRoot implements admin.Keys.
func (k *Keys) RotateRoot(context.Context) (*weirv1.Rotation, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roots = append(k.roots, &weirv1.Root{Fingerprint: fmt.Sprintf("root%d", len(k.roots)+1), NotBefore: timestamppb.New(at),
		NotAfter: timestamppb.New(at.AddDate(10, 0, 0)), State: weirv1.Root_SPREADING})
	return k.rotate(weirv1.Rotation_ROOT, k.roots[0].GetFingerprint(), k.roots[len(k.roots)-1].GetFingerprint(), "spread trust in the new root"), nil
}

func (k *Keys) rotate(what weirv1.Rotation_What, from, to, step string) *weirv1.Rotation {
	r := &weirv1.Rotation{What: what, From: from, To: to, BeginTime: timestamppb.New(at), Step: step, Done: 2, Total: 3, WaitingFor: []string{"server/three"}}
	k.rotations = []*weirv1.Rotation{r}
	return proto.CloneOf(r)
}

// Drop implements admin.Keys.
func (k *Keys) Drop(_ context.Context, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.keys, func(key *weirv1.ClusterKey) bool { return key.GetId() == id })
	switch {
	case at < 0:
		return refuse(admin.ReasonNotFound, "there is no key %q", id)
	case at == 0:
		return refuse(admin.ReasonState, "key %s seals; rotate first", id)
	}
	k.keys = slices.Delete(k.keys, at, at+1)
	return nil
}
