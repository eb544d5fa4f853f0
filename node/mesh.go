package node

import (
	"crypto/tls"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/proxy"
)

// proxyMesh is who a proxy is to others, by its identity.
func proxyMesh(node *identity.Identity, keyring *identity.Keyring, is proxyRole, refused *refusals) *proxy.Mesh {
	m := &proxy.Mesh{
		Identity: func(tenant, service string) string {
			return identity.ServiceURI(node.TrustDomain(), tenant, service).String()
		},
		Client:   func(of string) *tls.Config { return node.MeshClientTLS(of) },
		Outbound: is.outbound,
	}
	if is.role == identity.RoleSidecar {
		m.ResetKey = keyring.Derive("mesh stateless reset")
		m.Server = func(protocols ...string) *tls.Config { return node.MeshServerTLS(refused.note, protocols...) }
	}
	return m
}

// refusals counts the callers whom a sidecar does not let in, and logs why: one line
// a second, whoever knocks how often.
type refusals struct {
	log   *slog.Logger
	count prometheus.Counter

	mu     sync.Mutex
	logged time.Time
	silent int // since then
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, count: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "weir_mesh_refused_total", Help: "Connections refused because of the caller's certificate.",
	})}
}

func (r *refusals) note(why error) {
	r.count.Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.logged) < time.Second {
		r.silent++
		return
	}
	r.log.Warn("caller refused", "error", why, "not_logged", r.silent)
	r.logged, r.silent = time.Now(), 0
}
