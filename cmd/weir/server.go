package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weirmesh/weir/node"
)

func newServerCommand() *cobra.Command {
	var (
		process processFlags
		sc      node.ServerConfig
	)
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a member of the control cluster",
		Long: `Run a member of the control cluster: it keeps what is declared, and streams it
to the proxies.

A server that is new begins in one of three ways: --bootstrap founds a cluster
of which it is the first member; --join joins the cluster of the servers named,
by a token (weir join-token create --role server); and --bootstrap-expect N
founds one together with the servers named by --join, N in all, each with a
copy of the same DATA/keyring (weir cluster keys new). From its second start on
it goes on where it was, and the flags may stay.

The admin API is served over TLS and always wants a token. The first start
leaves one, with the rest of what the command line needs, in DATA/admin.env:

  . DATA/admin.env && weir status`,
		Example: `  weir server --bootstrap --name a --data /var/lib/weir --node 10.0.0.1:7400 --admin 10.0.0.1:7401
  weir server --join 10.0.0.1:7400 --token TOKEN --name b --data /var/lib/weir --node 10.0.0.2:7400 --admin 10.0.0.2:7401`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := process.config(cmd)
			if err != nil {
				return err
			}
			config.Server = &sc
			spareMemory()
			return runProcess(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	process.add(flags, "")
	flags.StringVar(&sc.Name, "name", hostLabel("server"), "this member's name, for ever (WEIR_NAME)")
	flags.StringVar(&sc.Node, "node", defaultNode, "address of the node API, UDP and TCP (WEIR_NODE)")
	flags.StringVar(&sc.Admin, "admin", defaultAdmin, "address to serve the admin API on (WEIR_ADMIN)")
	addBeginning(flags, &sc)
	return cmd
}

func addBeginning(flags *pflag.FlagSet, sc *node.ServerConfig) {
	flags.BoolVar(&sc.Bootstrap, "bootstrap", false, "found a cluster, as its first member (WEIR_BOOTSTRAP)")
	flags.IntVar(&sc.BootstrapExpect, "bootstrap-expect", 0, "found a cluster together with those at --join, so many in all (WEIR_BOOTSTRAP_EXPECT)")
	flags.StringSliceVar(&sc.Join, "join", nil, "node addresses of other servers: HOST:PORT[,HOST:PORT] (WEIR_JOIN)")
	flags.StringVar(&sc.Token, "token", "", "join token, for the first start (WEIR_TOKEN)")
	flags.StringVar(&sc.Advertise, "advertise", "", "where other nodes find this server: HOST:PORT; default --node (WEIR_ADVERTISE)")
	durationFlag(flags, &sc.CertificateLifetime, "certificate-lifetime", 24*time.Hour,
		"how long certificates that this server issues are good for, 1m to 24h; they are renewed at half of it (WEIR_CERTIFICATE_LIFETIME)")
	flags.Var((*deadAfter)(&sc.DeadAfter), "dead-after", "how long a server may be away before it is removed: a duration, or off (WEIR_DEAD_AFTER)")
}

// deadAfter is a duration, or "off", which is less than nothing.
type deadAfter time.Duration

const defaultDeadAfter = 72 * time.Hour

func (v *deadAfter) Type() string { return "duration|off" }

func (v *deadAfter) String() string {
	switch d := time.Duration(*v); {
	case d < 0:
		return "off"
	case d == 0:
		return defaultDeadAfter.String()
	default:
		return d.String()
	}
}

func (v *deadAfter) Set(s string) error {
	if s == "off" {
		*v = -1
		return nil
	}
	d, err := parseDuration(s)
	if err != nil {
		return err
	}
	if d < time.Second {
		return usagef("must be at least 1s, or off: a server that restarts is away, too")
	}
	*v = deadAfter(d)
	return nil
}
