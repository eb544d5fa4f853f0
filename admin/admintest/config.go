package admintest

import (
	"log/slog"

	"github.com/weirmesh/weir/admin"
)

// Config is that of an API over a cluster of the members "one", "two" and
// "three". It admits this host, and a token of "alice".
func Config(cluster *Cluster, logger *slog.Logger) admin.Config {
	proxies := NewProxies()
	return admin.Config{
		Store: cluster, Cluster: cluster, Servers: NewServers(cluster, proxies, "one", "two", "three"), Proxies: proxies,
		Admission: Admission{}, JoinTokens: new(JoinTokens), Keys: NewKeys(), Limits: NewLimits(), Sealer: Sealer{}, Tokens: Tokens{"s3cret": "alice"},
		AllowLoopback: true, Logger: logger, Version: "v1.2.3",
	}
}
