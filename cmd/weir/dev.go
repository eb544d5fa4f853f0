package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/node"
)

// devGateway is where `weir dev` listens until something else is declared.
const devGateway = "127.0.0.1:8080"

func newDevCommand() *cobra.Command {
	var (
		process                 processFlags
		proxy                   proxyFlags
		demo                    bool
		nodeAddr, admin, portal string
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run all of Weir in one process",
		Long: `Run all of Weir in one process: a server with its store, the admin API and an edge.

The admin API admits callers from this host without a token, and nobody else.
Where nothing was ever declared, a gateway named "public" is, on port 8080 of
the loopback address. With --demo, --data is another directory by default (demo
beside dev), so that the bookshop does not mix with what you declare. Each of the
bookshop's services, at ports 9001 to 9005, has a sidecar: inbound at 9101 to 9105,
outbound at 9201 to 9205; that of orders serves its metrics at 7411.`,
		Example: "  weir dev\n  weir dev --demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if demo && !cmd.Flags().Changed("data") {
				process.data = stateDirectory("demo")
			}
			config, err := process.config(cmd)
			if err != nil {
				return err
			}
			if config.Edge, err = proxy.config(cmd); err != nil {
				return err
			}
			config.Server = &node.ServerConfig{Name: "dev", Node: nodeAddr, Admin: admin, Open: true, Starter: devGateway, Bootstrap: true}
			config.Edge.Name = "dev"
			config.Demo = demo
			return runProcess(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	process.add(flags, stateDirectory("dev"))
	flags.BoolVar(&demo, "demo", false, "run a bookshop behind it, and say what to try (WEIR_DEMO)")
	flags.StringVar(&nodeAddr, "node", defaultDevNode, "address of the node API, UDP and TCP (WEIR_NODE)")
	flags.StringVar(&admin, "admin", defaultAdmin, "address to serve the admin API on (WEIR_ADMIN)")
	flags.StringVar(&portal, "portal", defaultPortal, "address of the developer portal, which does not exist yet: nothing is served there (WEIR_PORTAL)")
	proxy.add(flags)
	return cmd
}

// stateDirectory is where a user's programs keep what should outlive a restart;
// empty where the user has no such place, so that --data must be given.
func stateDirectory(name string) string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "weir", name)
}
