package main

import (
	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/node"
)

func newServerCommand() *cobra.Command {
	var (
		process               processFlags
		name, nodeAddr, admin string
	)
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a member of the control cluster",
		Long: `Run a member of the control cluster: it keeps what is declared, and streams it
to the proxies.

The admin API is served over TLS and always wants a token. The first start
leaves one, with the rest of what the command line needs, in DATA/admin.env:

  . DATA/admin.env && weir status`,
		Example: "  weir server --name a --data /var/lib/weir --node 10.0.0.1:7400 --admin 10.0.0.1:7401",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := process.config(cmd)
			if err != nil {
				return err
			}
			config.Server = &node.ServerConfig{Name: name, Node: nodeAddr, Admin: admin}
			return runProcess(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	process.add(flags, "")
	flags.StringVar(&name, "name", hostLabel("server"), "this member's name, for ever (WEIR_NAME)")
	flags.StringVar(&nodeAddr, "node", defaultNode, "address of the node API, UDP and TCP (WEIR_NODE)")
	flags.StringVar(&admin, "admin", defaultAdmin, "address to serve the admin API on (WEIR_ADMIN)")
	return cmd
}
