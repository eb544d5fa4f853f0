package cluster

import (
	"context"
	"slices"

	"github.com/hashicorp/raft"
)

// Role is what a member is in the cluster.
type Role string

// The roles.
const (
	Voter    Role = "VOTER"
	NonVoter Role = "NONVOTER"
)

// Member is one of those who agree on the log.
type Member struct {
	Name    string
	Role    Role
	Address string
}

func (n *Node) servers() []raft.Server {
	return n.raft.GetConfiguration().Configuration().Servers
}

// changeMembers has one change of the members after the other decided and made,
// so that none is decided by what another is about to change: all are made by
// the leader. (Raft can refuse what comes of an old look, but does not say of
// which index its configuration is.)
func (n *Node) changeMembers(ctx context.Context, change func() error) error {
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-n.changing }()
	return change()
}

// Members are those of the cluster, as this one knows it.
func (n *Node) Members() []Member { return n.members() }

// members are those of the newest configuration, at the addresses of the
// roster.
func (n *Node) members() []Member {
	var members []Member
	for _, s := range n.servers() {
		role := NonVoter
		if s.Suffrage == raft.Voter {
			role = Voter
		}
		members = append(members, Member{Name: string(s.ID), Role: role, Address: n.addressOf(s)})
	}
	return members
}

func (n *Node) addressOf(s raft.Server) string {
	if e, found := n.roster.Get(string(s.ID)); found && e.Address != "" {
		return e.Address
	}
	return string(s.Address)
}

func (n *Node) voters() (names []string) {
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			names = append(names, string(s.ID))
		}
	}
	return names
}

// isMember tells whether a name is in the newest configuration.
func (n *Node) isMember(name string) bool {
	return slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return string(s.ID) == name })
}
