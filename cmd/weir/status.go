package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newStatusCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the cluster and its proxies are",
		Args:  cobra.NoArgs,
	}
	return answered(c, cmd, view[*weirv1.GetStatusResponse]{program: message[*weirv1.GetStatusResponse], names: statusNames,
		table: func(cmd *cobra.Command, s *weirv1.GetStatusResponse, _ bool) error {
			return writeStatus(cmd.OutOrStdout(), s)
		}},
		func(cmd *cobra.Command, _ []string, api *session) (*weirv1.GetStatusResponse, error) {
			return api.GetStatus(cmd.Context(), &weirv1.GetStatusRequest{})
		})
}

// statusNames are who is there.
func statusNames(s *weirv1.GetStatusResponse) []string {
	var names []string
	for _, m := range s.GetMembers() {
		names = append(names, "member/"+m.GetName())
	}
	return append(names, proxyNames(s.GetProxies())...)
}

func writeStatus(w io.Writer, s *weirv1.GetStatusResponse) error {
	leader := s.GetLeader()
	if leader == "" {
		leader = "none: nothing can be changed now"
	}
	var counts []string
	for _, kind := range slices.Sorted(maps.Keys(s.GetResources())) {
		counts = append(counts, fmt.Sprintf("%d %s", s.GetResources()[kind], kind))
	}
	if len(counts) == 0 {
		counts = []string{"none"}
	}
	fmt.Fprintf(w, "Version:       %s\n", s.GetVersion())
	fmt.Fprintf(w, "Trust domain:  %s\n", s.GetTrustDomain())
	fmt.Fprintf(w, "Leader:        %s (term %d)\n", leader, s.GetTerm())
	fmt.Fprintf(w, "Revision:      %d (committed %d, applied %d)\n", s.GetRevision(), s.GetCommitIndex(), s.GetAppliedIndex())
	fmt.Fprintf(w, "Resources:     %s\n\n", strings.Join(counts, ", "))

	var members [][]string
	for _, m := range s.GetMembers() {
		role := strings.ToLower(m.GetRole().String())
		if m.GetName() == s.GetLeader() {
			role = "leader"
		}
		members = append(members, []string{m.GetName(), role, m.GetAddress()})
	}
	if err := writeTable(w, []string{"MEMBER", "ROLE", "ADDRESS"}, members); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return writeProxies(w, s.GetProxies(), s.GetRevision())
}

// proxyState is one word, or one and the reason.
func proxyState(p *weirv1.ProxyStatus, revision uint64) string {
	switch {
	case !p.GetConnected():
		return "gone"
	case p.GetRefusedRevision() > p.GetRevision():
		return fmt.Sprintf("refused %d: %s", p.GetRefusedRevision(), p.GetRefusedReason())
	case p.GetRevision() < revision:
		return "behind"
	case p.GetProblem() != "":
		return "current, but: " + p.GetProblem()
	}
	return "current"
}
