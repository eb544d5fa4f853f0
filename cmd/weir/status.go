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
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		status, err := api.GetStatus(cmd.Context(), &weirv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		switch {
		case output.forPrograms():
			return writeMessage(cmd.OutOrStdout(), *output, status)
		case *output == formatName:
			return writeStatusNames(cmd.OutOrStdout(), status)
		}
		return writeStatus(cmd.OutOrStdout(), status)
	}
	return cmd
}

// writeStatusNames prints who is there.
func writeStatusNames(w io.Writer, s *weirv1.GetStatusResponse) error {
	var b strings.Builder
	for _, m := range s.GetMembers() {
		fmt.Fprintf(&b, "member/%s\n", m.GetName())
	}
	for _, p := range s.GetProxies() {
		fmt.Fprintf(&b, "proxy/%s\n", p.GetName())
	}
	_, err := io.WriteString(w, b.String())
	return err
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

	var members, proxies [][]string
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
	if len(s.GetProxies()) == 0 {
		_, err := fmt.Fprintln(w, "No proxy has joined yet.")
		return err
	}
	for _, p := range s.GetProxies() {
		proxies = append(proxies, []string{p.GetName(), proxyState(p, s.GetRevision()), fmt.Sprint(p.GetRevision()),
			p.GetVersion(), p.GetAddress(), labelText(p.GetLabels()), age(p.GetLastSeen())})
	}
	return writeTable(w, []string{"PROXY", "STATE", "REVISION", "VERSION", "ADDRESS", "LABELS", "SEEN"}, proxies)
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
	}
	return "current"
}
