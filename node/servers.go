package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
	"github.com/weirmesh/weir/fleet"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/telemetry"
)

// servers are the cluster's members as the admin API sees them.
type servers struct {
	s       *server
	version string
}

var _ admin.Servers = servers{}

func (v servers) Status(context.Context) (*weirv1.ClusterStatus, error) {
	status := v.s.cluster.Status()
	m := &weirv1.ClusterStatus{
		Member: status.Name, Leader: status.Leader, Term: status.Term, CommitIndex: status.Commit, AppliedIndex: status.Applied,
		Revision: v.s.store.View().Revision(), TrustDomain: v.s.identity.TrustDomain(), Removed: status.Removed,
	}
	if status.Full {
		m.Impaired = "its disk is full"
	}
	reports := map[string]fleet.Report{}
	for _, r := range v.s.fleet.Reports() {
		reports[r.Name] = r
	}
	for i, member := range status.Members {
		c := v.member(status, status.Peers[i], member, reports[member.Name])
		if member.Role == cluster.Voter {
			m.Voters++
			if status.Peers[i].Reachable {
				m.ReachableVoters++
			}
		}
		if member.Name == status.Leader && member.Name != status.Name {
			m.Staleness = c.LastContact
		}
		m.Members = append(m.Members, c)
	}
	m.Majority = status.Leader != "" && 2*m.ReachableVoters > m.Voters
	if status.Leader == status.Name {
		m.Staleness = durationpb.New(0)
	}
	return m, nil
}

// member is what is known here of one member: what it says of itself, where it
// has said something lately, and how the log knows it.
func (v servers) member(status cluster.Status, peer cluster.Peer, member cluster.Member, r fleet.Report) *weirv1.ClusterMember {
	c := new(weirv1.ClusterMember)
	switch {
	case member.Name == status.Name:
		c = v.s.own(v.version, status)
	case r.Report.GetMember() != nil && r.Age < sayingHolds:
		c = proto.CloneOf(r.Report.GetMember())
	}
	c.Name, c.Address, c.Role, c.Lag = member.Name, member.Address, roleOf(member.Role), peer.Lag
	switch {
	case member.Name == status.Leader:
		c.State = weirv1.ClusterMember_LEADER
	case !peer.Reachable:
		c.State = weirv1.ClusterMember_UNREACHABLE
		c.Streams = 0 // what it said last: its proxies have gone to others
	case member.Role == cluster.NonVoter:
		c.State = weirv1.ClusterMember_CATCHING_UP
	default:
		c.State = weirv1.ClusterMember_FOLLOWER
	}
	if !peer.Heard.IsZero() && member.Name != status.Name {
		c.LastContact = durationpb.New(max(time.Since(peer.Heard), 0))
	}
	return c
}

// sayingHolds is how long what a member has said of itself is told on.
const sayingHolds = 30 * time.Second

func roleOf(r cluster.Role) weirv1.Member_Role {
	return weirv1.Member_Role(weirv1.Member_Role_value[string(r)])
}

// own is what this member says of itself.
func (s *server) own(version string, status cluster.Status) *weirv1.ClusterMember {
	c := &weirv1.ClusterMember{Name: s.name, Address: s.nodeAddress, Version: version, SnapshotIndex: status.Snapshot, Streams: s.streams()}
	if status.Sync.Count > 0 {
		c.LogSyncP50, c.LogSyncP99 = durationpb.New(status.Sync.P50), durationpb.New(status.Sync.P99)
	}
	if !status.SnapshotTaken.IsZero() {
		c.SnapshotAge = durationpb.New(time.Since(status.SnapshotTaken))
	}
	return c
}

// streams is how many proxies are connected here.
func (s *server) streams() (n uint32) {
	statuses, _ := s.api.Proxies().Statuses()
	for _, p := range statuses {
		if p.GetConnected() {
			n++
		}
	}
	return n
}

func (v servers) Remove(ctx context.Context, name string, force bool) error {
	if err := v.known(name); err != nil {
		return err
	}
	if len(v.s.memberNames()) == 1 {
		return refused(admin.ReasonState, "%s is the only server: a cluster without one is none", name)
	}
	return membersOutcome(v.s.remove(ctx, name, admin.Actor(ctx), force))
}

func (v servers) Transfer(ctx context.Context, to string) (string, error) {
	status := v.s.cluster.Status()
	switch {
	case to != "":
		if err := v.known(to); err != nil || to == status.Leader {
			return to, err
		}
	case len(status.Members) == 1:
		return "", refused(admin.ReasonState, "%s is the only server: there is no other to lead", status.Name)
	}
	if err := v.s.cluster.Transfer(ctx, to); err != nil {
		return "", membersOutcome(err)
	}
	if err := v.s.cluster.ReadBarrier(ctx); err != nil {
		return to, nil // it is done; who leads now is not known here yet
	}
	return v.s.cluster.Status().Leader, nil
}

// membersOutcome is outcome, for what the cluster refuses in its own words.
func membersOutcome(err error) error {
	if errors.Is(err, cluster.ErrRefused) {
		return refused(admin.ReasonState, "%s", strings.Replace(err.Error(), cluster.ErrRefused.Error()+": ", "", 1))
	}
	return outcome(err)
}

// known refuses names that no member has.
func (v servers) known(name string) error {
	var names []string
	for _, m := range v.s.cluster.Members() {
		if m.Name == name {
			return nil
		}
		names = append(names, m.Name)
	}
	return refused(admin.ReasonNotFound, "there is no member %q; there are %s", name, strings.Join(names, ", "))
}

func refused(reason admin.Reason, format string, args ...any) error {
	return &admin.Refused{Violations: []admin.Violation{{Reason: reason, Message: fmt.Sprintf(format, args...)}}}
}

// room is how many bytes are free on the disk of a directory, and how many it
// has.
func room(dir string) (free, size uint64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), fs.Blocks * uint64(fs.Bsize), nil
}

func checkDisk(member, dir string) *weirv1.DoctorCheck {
	free, size, err := room(dir)
	if err != nil {
		return &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_DISK, Subject: member, Result: weirv1.DoctorCheck_FAIL,
			Message: fmt.Sprintf("%s: %v", dir, err)}
	}
	return checkRoom(member, dir, free, size)
}

func checkCertificate(member string, notAfter, now time.Time) *weirv1.DoctorCheck {
	check := &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_TLS, Subject: member, Result: weirv1.DoctorCheck_OK,
		Message: "the certificate is good until " + notAfter.UTC().Format(time.RFC3339)}
	if !now.Before(notAfter) {
		check.Result = weirv1.DoctorCheck_FAIL
		check.Message = "the certificate was good until " + notAfter.UTC().Format(time.RFC3339)
		check.Advice = "look at the clock of this host, and in the log for why it was not renewed"
	}
	return check
}

// metrics serves what this member measures.
func (v servers) metrics() http.Handler {
	return telemetry.NewServerHandler(v.version, func() telemetry.Server {
		status, view := v.s.cluster.Status(), v.s.store.View()
		m := v.s.cluster.Metrics()
		s := telemetry.Server{
			Raft: telemetry.Raft{
				Leads: status.Leader == status.Name, HasLeader: status.Leader != "",
				Term: status.Term, Commit: status.Commit, Applied: status.Applied, LastContact: -1, LeaderChanges: m.Elections,
				Voters: m.Voters, NonVoters: m.Members - m.Voters, Lag: map[string]uint64{},
			},
			Log:     telemetry.Log{Last: status.Last, Bytes: uint64(m.LogBytes), SyncP50: -1, SyncP99: -1, SnapshotIndex: status.Snapshot, SnapshotAge: -1},
			Store:   telemetry.Store{Revision: view.Revision(), Resources: view.Counts()},
			Streams: int(v.s.streams()),
		}
		for i, peer := range status.Peers {
			if status.Members[i].Role == cluster.Voter && peer.Reachable {
				s.Raft.ReachVoters++
			}
			if peer.Known && s.Raft.Leads && peer.Name != status.Name {
				s.Raft.Lag[peer.Name] = peer.Lag
			}
			if peer.Name == status.Leader && !s.Raft.Leads {
				s.Raft.LastContact = time.Since(peer.Heard)
			}
		}
		s.Raft.HasMajority = s.Raft.HasLeader && 2*s.Raft.ReachVoters > s.Raft.Voters
		if status.Sync.Count > 0 {
			s.Log.SyncP50, s.Log.SyncP99 = status.Sync.P50, status.Sync.P99
		}
		if !status.SnapshotTaken.IsZero() {
			s.Log.SnapshotAge = time.Since(status.SnapshotTaken)
		}
		return s
	})
}
