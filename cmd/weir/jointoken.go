package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newJoinTokenCommand(c *client) *cobra.Command {
	return group("join-token", "Let nodes join", newJoinTokenCreateCommand(c))
}

func newJoinTokenCreateCommand(c *client) *cobra.Command {
	var role string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "create --role server|edge|sidecar",
		Short:   "Make a token with which a node joins; it is shown once",
		Example: "  weir join-token create --role edge --ttl 1h\n  weir edge --name edge-1 --token \"$(weir join-token create --role edge -o name)\" …",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&role, "role", "", "what may join with it: server, edge or sidecar")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it may be used")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		number, ok := weirv1.CreateJoinTokenRequest_Role_value[strings.ToUpper(role)]
		if !ok || number == 0 {
			return usagef("--role must be server, edge or sidecar, not %q", role)
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		token, err := api.CreateJoinToken(cmd.Context(), &weirv1.CreateJoinTokenRequest{
			Role: weirv1.CreateJoinTokenRequest_Role(number), Ttl: durationpb.New(ttl)})
		if err != nil {
			return err
		}
		if output.forPrograms() {
			return writeMessage(cmd.OutOrStdout(), *output, token)
		}
		if *output != formatName {
			fmt.Fprintf(cmd.ErrOrStderr(), "It may be used until %s, and is not shown again.\n", token.GetExpireTime().AsTime().Format(time.RFC3339))
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), token.GetToken())
		return err
	}
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"server", "edge", "sidecar"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
