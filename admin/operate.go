package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// operator is weir.v1.ClusterService, beside the service on whose Config it
// works.
type operator struct{ *service }

var _ weirv1connect.ClusterServiceHandler = operator{}

func (o operator) GetStatus(ctx context.Context, _ *weirv1.ClusterServiceGetStatusRequest) (*weirv1.ClusterServiceGetStatusResponse, error) {
	status, err := o.Servers.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status of the cluster: %w", err)
	}
	return &weirv1.ClusterServiceGetStatusResponse{Status: status}, nil
}

func (o operator) RemoveMember(ctx context.Context, req *weirv1.RemoveMemberRequest) (*weirv1.RemoveMemberResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("name", "is required: which member is to go?")
	}
	within, cancel := o.deciding(ctx)
	defer cancel()
	if err := o.Servers.Remove(within, req.GetName(), req.GetForce()); err != nil {
		return nil, fmt.Errorf("remove member %s: %w", req.GetName(), undecided(ctx, err))
	}
	o.Logger.Info("member removed", "actor", Actor(ctx), "member", req.GetName(), "force", req.GetForce())
	return &weirv1.RemoveMemberResponse{}, nil
}

func (o operator) RemoveProxy(ctx context.Context, req *weirv1.RemoveProxyRequest) (*weirv1.RemoveProxyResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("name", "is required: which proxy is to go?")
	}
	within, cancel := o.deciding(ctx)
	defer cancel()
	if err := o.Servers.RemoveProxy(within, req.GetName()); err != nil {
		return nil, fmt.Errorf("remove proxy %s: %w", req.GetName(), undecided(ctx, err))
	}
	o.Logger.Info("proxy removed", "actor", Actor(ctx), "proxy", req.GetName())
	return &weirv1.RemoveProxyResponse{}, nil
}

func (o operator) TransferLeadership(ctx context.Context, req *weirv1.TransferLeadershipRequest) (*weirv1.TransferLeadershipResponse, error) {
	within, cancel := o.deciding(ctx)
	defer cancel()
	leader, err := o.Servers.Transfer(within, req.GetTo())
	if err != nil {
		return nil, fmt.Errorf("transfer leadership: %w", undecided(ctx, err))
	}
	o.Logger.Info("leadership transferred", "actor", Actor(ctx), "to", leader)
	return &weirv1.TransferLeadershipResponse{Leader: leader}, nil
}

// Doctor adds to what the servers look for what their status tells.
func (o operator) Doctor(ctx context.Context, _ *weirv1.DoctorRequest) (*weirv1.DoctorResponse, error) {
	status, err := o.Servers.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status of the cluster: %w", err)
	}
	checks, err := o.Servers.Doctor(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for what is wrong: %w", err)
	}
	checks = append(slices.Clone(checks), checkQuorum(status), checkVersions(status, o.Version))
	slices.SortStableFunc(checks, func(a, b *weirv1.DoctorCheck) int {
		return cmp.Or(cmp.Compare(a.GetLayer(), b.GetLayer()), cmp.Compare(a.GetSubject(), b.GetSubject()))
	})
	return &weirv1.DoctorResponse{Member: status.GetMember(), Checks: checks}, nil
}

// checkQuorum: the cluster can decide, and still could with one voter fewer.
func checkQuorum(s *weirv1.ClusterStatus) *weirv1.DoctorCheck {
	check := &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_QUORUM, Subject: s.GetMember(), Result: weirv1.DoctorCheck_OK,
		Message: fmt.Sprintf("%s leads; %s", s.GetLeader(), reachableText(s))}
	needed := s.GetVoters()/2 + 1
	switch why := whyUndecided(s); {
	case why != "":
		check.Result, check.Message = weirv1.DoctorCheck_FAIL, why
		check.Advice = fmt.Sprintf("start servers until %d of the %d voters are there; if they are lost for good: weir cluster recover on one that is left", needed, s.GetVoters())
		if s.GetImpaired() != "" {
			check.Advice = "mend what is said, on this member's host"
		}
		if s.GetRemoved() {
			check.Advice = "it was taken out: stop it, and let it join with an empty directory and a new token if it is to come back"
		}
	case s.GetVoters() > 1 && s.GetReachableVoters() <= needed:
		check.Result = weirv1.DoctorCheck_WARN
		check.Message += ": one loss more, and nothing can be changed"
		check.Advice = "start the servers that are missing, or replace them: weir cluster remove NAME, and join another"
	case s.GetVoters() == 1:
		check.Message += ": what it loses is lost"
		check.Advice = "for a cluster that survives the loss of a server, let two more join"
	case s.GetVoters()%2 == 0:
		check.Message += fmt.Sprintf(": %d voters survive no more losses than %d", s.GetVoters(), s.GetVoters()-1)
	}
	return check
}

// checkVersions: the members run one version.
func checkVersions(s *weirv1.ClusterStatus, own string) *weirv1.DoctorCheck {
	var others []string
	for _, m := range s.GetMembers() {
		if v := m.GetVersion(); v != "" && v != own {
			others = append(others, fmt.Sprintf("%s has %s", m.GetName(), v))
		}
	}
	check := &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_VERSION, Subject: s.GetMember(), Result: weirv1.DoctorCheck_OK, Message: own}
	if len(others) > 0 {
		check.Result = weirv1.DoctorCheck_WARN
		check.Message = fmt.Sprintf("this is %s, but %s", own, summary(others))
		check.Advice = "finish the upgrade: what is new is not used before every member knows it"
	}
	return check
}
