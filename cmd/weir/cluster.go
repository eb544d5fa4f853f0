package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newClusterCommand(c *client) *cobra.Command {
	return group("cluster", "Operate the servers",
		newClusterStatusCommand(c), newMembersCommand(c), newRemoveCommand(c), newTransferCommand(c),
		newBackupCommand(c), newRestoreCommand(c), newRecoverCommand(), newDoctorCommand(c), newKeysCommand(c))
}

func newClusterStatusCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the servers are, as the one that answers knows it",
		Args:  cobra.NoArgs,
	}
	return answered(c, cmd, view[*weirv1.ClusterStatus]{
		program: message[*weirv1.ClusterStatus],
		names:   func(s *weirv1.ClusterStatus) []string { return memberNames(s.GetMembers()) },
		table: func(cmd *cobra.Command, s *weirv1.ClusterStatus, wide bool) error {
			writeClusterStatus(cmd.OutOrStdout(), s)
			return writeMembers(cmd, s.GetMembers(), wide)
		},
	}, clusterStatus)
}

func clusterStatus(cmd *cobra.Command, _ []string, api *session) (*weirv1.ClusterStatus, error) {
	m, err := api.cluster.GetStatus(cmd.Context(), &weirv1.ClusterServiceGetStatusRequest{})
	return m.GetStatus(), err
}

func writeClusterStatus(w io.Writer, s *weirv1.ClusterStatus) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-14s%s\n", name+":", fmt.Sprintf(format, args...))
	}
	leader := s.GetLeader()
	if leader == "" {
		leader = "none: nothing can be changed now"
	}
	line("Leader", "%s (term %d)", leader, s.GetTerm())
	majority := "yes"
	if !s.GetMajority() {
		majority = "no"
	}
	line("Majority", "%s, %d of %d voters reachable", majority, s.GetReachableVoters(), s.GetVoters())
	if s.GetImpaired() != "" {
		line("Impaired", "%s", s.GetImpaired())
	}
	if s.GetRemoved() {
		line("Removed", "%s was taken out of the cluster", s.GetMember())
	}
	line("Revision", "%d (committed %d, applied %d)", s.GetRevision(), s.GetCommitIndex(), s.GetAppliedIndex())
	line("Trust domain", "%s", s.GetTrustDomain())
	line("Told by", "%s%s", s.GetMember(), staleText(s))
	fmt.Fprintln(w)
}

// staleText says how old the news of a member is, where they are not new.
func staleText(s *weirv1.ClusterStatus) string {
	switch {
	case s.GetMajority():
		return ""
	case s.GetStaleness() == nil:
		return ", which hears of no leader"
	}
	return fmt.Sprintf(", which has heard of no leader for %s", brief(s.GetStaleness().AsDuration()))
}

func newMembersCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "members",
		Short:   "List the servers",
		Example: "  weir cluster members\n  weir cluster members -o json | jq -r '.[] | select(.role == \"VOTER\") | .name'",
		Args:    cobra.NoArgs,
	}
	return answered(c, cmd, view[[]*weirv1.ClusterMember]{program: list[*weirv1.ClusterMember], names: memberNames, table: writeMembers},
		func(cmd *cobra.Command, args []string, api *session) ([]*weirv1.ClusterMember, error) {
			s, err := clusterStatus(cmd, args, api)
			return s.GetMembers(), err
		})
}

func memberNames(members []*weirv1.ClusterMember) []string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = "member/" + m.GetName()
	}
	return names
}

func writeMembers(cmd *cobra.Command, members []*weirv1.ClusterMember, wide bool) error {
	header := []string{"MEMBER", "ROLE", "STATE", "ADDRESS", "CONTACT", "LAG", "PROXIES", "VERSION"}
	if wide {
		header = append(header, "LOG SYNC P50", "P99", "SNAPSHOT", "AGE")
	}
	rows := make([][]string, len(members))
	for i, m := range members {
		proxies := fmt.Sprint(m.GetStreams())
		if m.GetState() == weirv1.ClusterMember_UNREACHABLE {
			proxies = "-" // nobody knows
		}
		rows[i] = []string{m.GetName(), word(m.GetRole().String()), word(m.GetState().String()), m.GetAddress(),
			ago(m.GetLastContact()), fmt.Sprint(m.GetLag()), proxies, m.GetVersion()}
		if wide {
			snapshot := ""
			if m.GetSnapshotIndex() > 0 {
				snapshot = fmt.Sprint(m.GetSnapshotIndex())
			}
			rows[i] = append(rows[i], length(m.GetLogSyncP50()), length(m.GetLogSyncP99()), snapshot, length(m.GetSnapshotAge()))
		}
	}
	return writeTable(cmd.OutOrStdout(), header, rows)
}

// word is the name of an enum's value as people write it; nothing for none.
func word(name string) string {
	if strings.HasSuffix(name, "UNSPECIFIED") {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", " "))
}

func length(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return brief(d.AsDuration())
}

func ago(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return length(d) + " ago"
}

func newRemoveCommand(c *client) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a server out of the cluster for good",
		Long: `Take a server out of the cluster for good. To come back it must join anew, with
an empty directory and a token. What would leave a cluster that cannot decide
is refused, unless with --force.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when those that remain are no majority")
	return done(c, cmd, "removed", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		name := strings.TrimPrefix(args[0], "member/")
		_, err := api.cluster.RemoveMember(cmd.Context(), &weirv1.RemoveMemberRequest{Name: name, Force: force})
		return "member/" + name, err
	})
}

func newTransferCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [NAME]",
		Short: "Let another server lead: the one that has come furthest, or the one named",
		Args:  cobra.MaximumNArgs(1),
	}
	return done(c, cmd, "leads", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		req := new(weirv1.TransferLeadershipRequest)
		if len(args) > 0 {
			req.To = strings.TrimPrefix(args[0], "member/")
		}
		m, err := api.cluster.TransferLeadership(cmd.Context(), req)
		return "member/" + m.GetLeader(), err
	})
}
