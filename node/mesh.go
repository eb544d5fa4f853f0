package node

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// proxyMesh is who a proxy is to others, by its identity.
func proxyMesh(node *identity.Identity, keyring *identity.Keyring, is proxyRole, refused *refusals) *proxy.Mesh {
	m := &proxy.Mesh{
		Identity: func(tenant, service string) string {
			return identity.ServiceURI(node.TrustDomain(), tenant, service).String()
		},
		Client: func(of string) *tls.Config {
			c := node.MeshClientTLS(of)
			verify := c.VerifyConnection
			c.VerifyConnection = func(state tls.ConnectionState) error {
				err := verify(state)
				if errors.Is(err, identity.ErrShutOut) {
					refused.noteCallee(err)
				}
				return err
			}
			return c
		},
		Outbound:  is.outbound,
		IsShutOut: node.IsShutOut,
	}
	if is.role == identity.RoleSidecar {
		m.ResetKey = keyring.Derive("mesh stateless reset")
		m.Server = func(protocols ...string) *tls.Config { return node.MeshServerTLS(refused.note, protocols...) }
	}
	return m
}

// refusals counts the proxies that one has nothing to do with, and logs why: one line a
// second, whoever knocks how often.
type refusals struct {
	log *slog.Logger
	// callers are refused at the door, callees are not sent anything, and cut are
	// connections with either that were there when they were shut out.
	callers, callees, cut prometheus.Counter

	mu     sync.Mutex
	logged time.Time
	silent int // since then
}

func newRefusals(log *slog.Logger) *refusals {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &refusals{
		log:     log,
		callers: counter("weir_mesh_refused_total", "Connections refused because of the caller's certificate."),
		callees: counter("weir_mesh_callees_refused_total", "Connections given up because the sidecar that was called is shut out."),
		cut:     counter("weir_mesh_cut_total", "Connections broken because the proxy at the other end was shut out."),
	}
}

// counters are what is shown of it.
func (r *refusals) counters() []prometheus.Collector {
	return []prometheus.Collector{r.callers, r.callees, r.cut}
}

func (r *refusals) note(why error) {
	r.callers.Inc()
	r.tell("caller refused", why)
}

func (r *refusals) noteCallee(why error) {
	r.callees.Inc()
	r.tell("callee refused", why)
}

func (r *refusals) tell(what string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.logged) < time.Second {
		r.silent++
		return
	}
	r.log.Warn(what, "error", why, "not_logged", r.silent)
	r.logged, r.silent = time.Now(), 0
}

// takeShutOut has a proxy believe the keys no more that the servers tell it, and break
// what it has with those who bear them. keep: they are written to disk, too.
func (e *edge) takeShutOut(node *identity.Identity, refused *refusals, keys *weirv1.ShutOut, keep bool) {
	fresh, err := node.TakeShutOut(keys, keep)
	if err != nil {
		refused.log.Error("proxies that were shut out are let in again after a restart, until a server tells of them", "error", err)
	}
	if !fresh {
		return
	}
	cut := e.proxy.CutPeers()
	refused.cut.Add(float64(cut))
	refused.log.Info("proxies are shut out", "keys", len(keys.GetKeys()), "connections_cut", cut)
}
