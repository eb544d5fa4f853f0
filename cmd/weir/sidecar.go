package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/node"
)

func newSidecarCommand() *cobra.Command {
	var (
		process processFlags
		proxy   proxyFlags
		sidecar node.SidecarConfig
		token   string
		servers []string
		labels  map[string]string
	)
	cmd := &cobra.Command{
		Use:   "sidecar",
		Short: "Run a proxy beside one instance of a service",
		Long: `Run a proxy beside one instance of a service.

It registers the instance at --address, checks that it is well, and carries what
others send to it and what it sends to others, by HTTP/3 with mutual TLS. The
service reaches others by plain HTTP at --outbound: http://NAME.mesh/ by the Host
field, or as http_proxy.

The first start joins the cluster by a token (weir join-token create --role
sidecar --service NAME), which says what service it is the sidecar of. From then
on it has a key of its own, and starts without a token, and without a server.

SIGUSR2 has the sidecar start the program anew, as it does an edge (weir edge
--help). The instance stays registered throughout.`,
		Example: "  weir sidecar --name books-1 --service books --address 127.0.0.1:9001 --servers 10.0.0.1:7400 --token TOKEN \\\n" +
			"    --data /var/lib/weir-books --inbound 10.0.0.9:7443 --outbound 127.0.0.1:7480 --proxy-admin 127.0.0.1:7410",
		Args: edgeArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case len(servers) == 0:
				return usagef("name at least one server with --servers")
			case sidecar.Service == "":
				return usagef("name the service with --service")
			case sidecar.Address == "":
				return usagef("say where the service takes requests with --address")
			}
			config, err := process.config(cmd)
			if err != nil {
				return err
			}
			common, err := proxy.config(cmd)
			if err != nil {
				return err
			}
			common.Name, common.Servers, common.Token, common.Labels, common.Drain = sidecar.Name, servers, token, labels, sidecar.Drain
			sidecar.EdgeConfig = *common
			config.Sidecar = &sidecar
			return runUpgradable(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	process.add(flags, "")
	flags.StringVar(&sidecar.Name, "name", hostLabel("sidecar"), "this sidecar's name, unique among proxies (WEIR_NAME)")
	flags.StringVar(&sidecar.Service, "service", "", "the service that it speaks for (WEIR_SERVICE)")
	flags.StringVar(&sidecar.Tenant, "tenant", "default", "the service's tenant (WEIR_TENANT)")
	flags.StringVar(&sidecar.Address, "address", "", "where the service itself takes requests: HOST:PORT (WEIR_ADDRESS)")
	flags.StringVar(&sidecar.Inbound, "inbound", ":7443", "where other proxies reach it, UDP and TCP (WEIR_INBOUND)")
	flags.StringVar(&sidecar.Advertise, "advertise", "", "that address as the others know it (default: --inbound, with this host's address) (WEIR_ADVERTISE)")
	flags.StringVar(&sidecar.Outbound, "outbound", "127.0.0.1:7480", "where the service reaches others (WEIR_OUTBOUND)")
	flags.StringVar(&sidecar.HealthPath, "health-path", "", "path that answers 2xx or 3xx while the service is well; empty: it need only accept connections (WEIR_HEALTH_PATH)")
	flags.StringSliceVar(&servers, "servers", nil, "node addresses of servers: HOST:PORT[,HOST:PORT] (WEIR_SERVERS)")
	flags.StringVar(&token, "token", "", "join token, for the first start (WEIR_TOKEN)")
	flags.StringToStringVar(&labels, "labels", nil, "labels of the instance, which subsets select by: KEY=VALUE[,KEY=VALUE] (WEIR_LABELS)")
	durationFlag(flags, &sidecar.Drain, "drain", 10*time.Second, "how long requests in flight may take when the sidecar stops (WEIR_DRAIN)")
	proxy.add(flags)
	return cmd
}
