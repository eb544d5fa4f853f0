package main

import (
	"time"

	"github.com/spf13/cobra"
)

func newEdgeCommand() *cobra.Command {
	var (
		process     processFlags
		proxy       proxyFlags
		name, token string
		servers     []string
		labels      map[string]string
		drain       time.Duration
	)
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Run a proxy for public traffic",
		Long: `Run a proxy that serves the Gateways whose selector its labels satisfy.

The first start joins the cluster by a token (weir join-token create --role
edge). From then on the edge has a key of its own, which renews its
certificate, and what it was last told: it starts and serves without a token,
and without a server.

SIGUSR2 has the edge start the program anew, from the file that it was started
from, and hand its sockets over; it ends once the new one serves and the
requests in flight are done. Where the new one does not come to serve, the old
one goes on.`,
		Example: "  weir edge --name e1 --data /var/lib/weir --servers 10.0.0.1:7400 --token TOKEN --labels zone=public",
		Args:    edgeArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(servers) == 0 {
				return usagef("name at least one server with --servers")
			}
			config, err := process.config(cmd)
			if err != nil {
				return err
			}
			if config.Edge, err = proxy.config(cmd); err != nil {
				return err
			}
			config.Edge.Name, config.Edge.Servers, config.Edge.Token, config.Edge.Labels = name, servers, token, labels
			config.Edge.Drain = drain
			return runUpgradable(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	process.add(flags, "")
	flags.StringVar(&name, "name", hostLabel("edge"), "this edge's name, unique among edges (WEIR_NAME)")
	flags.StringSliceVar(&servers, "servers", nil, "node addresses of servers: HOST:PORT[,HOST:PORT] (WEIR_SERVERS)")
	flags.StringVar(&token, "token", "", "join token, for the first start (WEIR_TOKEN)")
	flags.StringToStringVar(&labels, "labels", nil, "labels that Gateways select edges by: KEY=VALUE[,KEY=VALUE] (WEIR_LABELS)")
	durationFlag(flags, &drain, "drain", 10*time.Second, "how long requests in flight may take when the edge stops (WEIR_DRAIN)")
	proxy.add(flags)
	return cmd
}

// edgeArguments helps those who look for the admin address of a server. It runs
// before the environment is read: WEIR_ADMIN is there for other commands.
func edgeArguments(cmd *cobra.Command, args []string) error {
	if cmd.Flags().Changed("admin") {
		return usagef("an edge has no admin API, and calls none; its metrics and health are at --proxy-admin, servers are named by --servers")
	}
	return cobra.NoArgs(cmd, args)
}
