package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/node"
)

func newRecoverCommand() *cobra.Command {
	var config node.RecoverConfig
	var members []string
	cmd := &cobra.Command{
		Use:   "recover --data DIR",
		Short: "Begin a cluster anew that has lost its majority for good",
		Long: `Begin a cluster anew that has lost its majority for good, on this host, while no
server of it runs.

Without --from the server whose data is in DIR goes on alone from what its disk
holds: choose the survivor with the highest applied index (weir cluster status
tells). With --from a new server begins with a backup; DIR holds nothing but the
keyring of the cluster that the backup is of, as DIR/keyring.

Then start the server in DIR as ever. Others join it with empty data directories.`,
		Example: `  weir cluster recover --data /var/lib/weir
  weir cluster recover --data /var/lib/weir --name a --from weir.backup`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config.Data == "" {
				return usagef("name the server's directory with --data")
			}
			for _, m := range members {
				name, address, ok := strings.Cut(m, "=")
				if !ok || name == "" || address == "" {
					return usagef("--members %q is not NAME=HOST:PORT", m)
				}
				config.Members = append(config.Members, node.Member{Name: name, Address: address})
			}
			config.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			if err := node.Recover(config); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "A new cluster begins in %s: start its server. Others join it with empty data directories.\n", config.Data)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Data, "data", "", "directory of the server (WEIR_DATA)")
	flags.StringVar(&config.Name, "name", "", "the server's name; needed with --from (WEIR_NAME)")
	flags.StringVar(&config.From, "from", "", "backup to begin with")
	flags.StringSliceVar(&members, "members", nil, "the new cluster: NAME=HOST:PORT; default: that server alone")
	return cmd
}
