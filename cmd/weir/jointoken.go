package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newJoinTokenCommand(c *client) *cobra.Command {
	return group("join-token", "Let nodes join", newJoinTokenCreateCommand(c), newJoinTokenListCommand(c), newJoinTokenRevokeCommand(c))
}

func newJoinTokenCreateCommand(c *client) *cobra.Command {
	var role, service string
	var ttl time.Duration
	var uses uint32
	cmd := &cobra.Command{
		Use:   "create --role server|edge|sidecar",
		Short: "Make a token with which nodes join; it is shown once",
		Long: `Make a token with which nodes join; it is shown once.

A token for servers admits one, since a server gets the keys of the cluster;
one for edges or sidecars admits any number while it lasts. --uses says
otherwise. One for sidecars is for those of one service, whose identity they get.`,
		Example: "  weir join-token create --role edge --ttl 1h\n  weir edge --name edge-1 --token \"$(weir join-token create --role edge -o name)\" …\n  weir join-token create --role sidecar --service books",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&role, "role", "", "what may join with it: server, edge or sidecar")
	durationFlag(cmd.Flags(), &ttl, "ttl", time.Hour, "how long it may be used")
	cmd.Flags().Uint32Var(&uses, "uses", 0, "how many nodes may join with it; 0: any number (default 1 for servers, else 0)")
	cmd.Flags().StringVar(&service, "service", "", "the service that the sidecars speak for, of --tenant")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"server", "edge", "sidecar"}, cobra.ShellCompDirectiveNoFileComp))
	v := view[*weirv1.CreateJoinTokenResponse]{program: message[*weirv1.CreateJoinTokenResponse],
		names: func(m *weirv1.CreateJoinTokenResponse) []string { return []string{m.GetToken()} }}
	v.table = func(cmd *cobra.Command, m *weirv1.CreateJoinTokenResponse, _ bool) error {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s may be used until %s, %s; it is not shown again.\n",
			m.GetId(), m.GetExpireTime().AsTime().Format(time.RFC3339), usesText(uses))
		return writeLines(cmd.OutOrStdout(), v.names(m))
	}
	return answered(c, cmd, v, func(cmd *cobra.Command, _ []string, api *session) (*weirv1.CreateJoinTokenResponse, error) {
		number, ok := weirv1.CreateJoinTokenRequest_Role_value[strings.ToUpper(role)]
		if !ok || number == 0 {
			return nil, usagef("--role must be server, edge or sidecar, not %q", role)
		}
		req := &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_Role(number), Ttl: durationpb.New(ttl), Service: service}
		if sidecar := req.GetRole() == weirv1.CreateJoinTokenRequest_SIDECAR; sidecar != (service != "") {
			return nil, usagef("name the service of sidecars, and of nobody else, with --service")
		} else if sidecar {
			req.Tenant = c.tenant
		}
		if req.GetRole() == weirv1.CreateJoinTokenRequest_SERVER && !cmd.Flags().Changed("uses") {
			uses = 1
		}
		req.Uses = uses
		return api.CreateJoinToken(cmd.Context(), req)
	})
}

func usesText(uses uint32) string {
	switch uses {
	case 0:
		return "by any number of nodes"
	case 1:
		return "by one node"
	}
	return fmt.Sprintf("by %d nodes", uses)
}

func newJoinTokenListCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tokens with which nodes may join", Args: cobra.NoArgs}
	return answered(c, cmd, view[[]*weirv1.JoinToken]{
		program: list[*weirv1.JoinToken],
		names: func(all []*weirv1.JoinToken) []string {
			ids := make([]string, len(all))
			for i, t := range all {
				ids[i] = t.GetId()
			}
			return ids
		},
		table: writeJoinTokens,
	}, func(cmd *cobra.Command, _ []string, api *session) ([]*weirv1.JoinToken, error) {
		m, err := api.cluster.ListJoinTokens(cmd.Context(), &weirv1.ListJoinTokensRequest{})
		return m.GetTokens(), err
	})
}

func writeJoinTokens(cmd *cobra.Command, all []*weirv1.JoinToken, _ bool) error {
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are no join tokens")
		return nil
	}
	rows := make([][]string, len(all))
	for i, t := range all {
		used := fmt.Sprint(t.GetUsed())
		if t.GetUses() > 0 {
			used += fmt.Sprintf(" of %d", t.GetUses())
		}
		left := "expired"
		if d := time.Until(t.GetExpireTime().AsTime()); d > 0 {
			left = brief(d)
		}
		rows[i] = []string{t.GetId(), strings.ToLower(t.GetRole().String()), cmp.Or(t.GetService(), "-"), used, age(t.GetCreateTime()), left, t.GetCreatedBy()}
	}
	return writeTable(cmd.OutOrStdout(), []string{"ID", "ROLE", "SERVICE", "USED", "AGE", "EXPIRES IN", "MADE BY"}, rows)
}

func newJoinTokenRevokeCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke ID",
		Short:   "Let nobody join any more with a token",
		Long:    "Let nobody join any more with a token. Nodes that have joined stay.",
		Example: "  weir join-token list\n  weir join-token revoke 3f9a0c12bd45",
		Args:    cobra.ExactArgs(1),
	}
	return done(c, cmd, "revoked", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		_, err := api.cluster.RevokeJoinToken(cmd.Context(), &weirv1.RevokeJoinTokenRequest{Id: args[0]})
		return "join-token/" + args[0], err
	})
}
