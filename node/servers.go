package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/cluster"
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
		Revision: v.s.store.View().Revision(), TrustDomain: v.s.identity.TrustDomain(), Majority: status.Leader != "",
	}
	if status.Leader == status.Name {
		m.Staleness = durationpb.New(0)
	}
	for _, member := range status.Members {
		c := &weirv1.ClusterMember{Name: member.Name, Address: member.Address, Role: roleOf(member.Role)}
		if member.Role == cluster.Voter {
			m.Voters++
		}
		if member.Name == status.Name {
			m.ReachableVoters++
			c.Version, c.Streams, c.State = v.version, v.streams(), weirv1.ClusterMember_FOLLOWER
		}
		if member.Name == status.Leader {
			c.State = weirv1.ClusterMember_LEADER
		}
		m.Members = append(m.Members, c)
	}
	return m, nil
}

func roleOf(r cluster.Role) weirv1.Member_Role {
	return weirv1.Member_Role(weirv1.Member_Role_value[string(r)])
}

// streams is how many proxies are connected here.
func (v servers) streams() (n uint32) {
	statuses, _ := v.s.api.Proxies().Statuses()
	for _, p := range statuses {
		if p.GetConnected() {
			n++
		}
	}
	return n
}

func (v servers) Remove(_ context.Context, name string, _ bool) error {
	if err := v.known(name); err != nil {
		return err
	}
	return refused(admin.ReasonState, "%s is the only server: a cluster without one is none", name)
}

func (v servers) Transfer(_ context.Context, to string) (string, error) {
	own := v.s.cluster.Status().Name
	if to == "" {
		return "", refused(admin.ReasonState, "%s is the only server: there is no other to lead", own)
	}
	return own, v.known(to)
}

// known refuses names that no member has.
func (v servers) known(name string) error {
	var names []string
	for _, m := range v.s.cluster.Status().Members {
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

func (v servers) Backup(context.Context, bool) (io.ReadCloser, uint64, error) {
	return nil, 0, fmt.Errorf("back up: %w", errors.ErrUnsupported)
}

func (v servers) Restore(context.Context, io.Reader) (uint64, error) {
	return 0, fmt.Errorf("restore: %w", errors.ErrUnsupported)
}

// Doctor looks at this host.
func (v servers) Doctor(context.Context) ([]*weirv1.DoctorCheck, error) {
	name := v.s.cluster.Status().Name
	return []*weirv1.DoctorCheck{checkDisk(name, v.s.dir), checkCertificate(name, v.s.identity.NotAfter(), time.Now())}, nil
}

func checkDisk(member, dir string) *weirv1.DoctorCheck {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_DISK, Subject: member, Result: weirv1.DoctorCheck_FAIL,
			Message: fmt.Sprintf("%s: %v", dir, err)}
	}
	return checkRoom(member, dir, fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize))
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
		raft := telemetry.Raft{
			Leads: status.Leader == status.Name, HasLeader: status.Leader != "", HasMajority: status.Leader != "",
			Term: status.Term, Commit: status.Commit, Applied: status.Applied, ReachVoters: 1, LastContact: -1,
		}
		for _, m := range status.Members {
			if m.Role == cluster.Voter {
				raft.Voters++
			} else {
				raft.NonVoters++
			}
		}
		return telemetry.Server{
			Raft:    raft,
			Log:     telemetry.Log{SyncP50: -1, SyncP99: -1, SnapshotAge: -1},
			Store:   telemetry.Store{Revision: view.Revision(), Resources: view.Counts()},
			Streams: int(v.streams()),
		}
	})
}
