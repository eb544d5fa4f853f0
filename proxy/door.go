package proxy

import (
	"cmp"
	"syscall"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/router"
	"github.com/weirmesh/weir/resource"
)

// What holds where a listener does not say otherwise.
const (
	defaultPerClient     = 16384
	defaultHeaderTimeout = 5 * time.Second
)

// compileDoors says of each socket how it takes connections in: as its oldest
// listener wants.
func (p *Proxy) compileDoors(table *router.Table[*rule]) map[bindKey]*listener.Admission {
	doors := map[bindKey]*listener.Admission{}
	for l := range table.Listeners() {
		k := socketOf(l)
		if doors[k] != nil {
			continue
		}
		spec := p.listenerSpec(l)
		a := &listener.Admission{
			Streams:        resource.IsStream(l.Protocol),
			MaxConnections: int(spec.GetConnectionLimits().GetMaxConnections()),
			MaxPerClient:   defaultPerClient,
		}
		if limits := spec.GetConnectionLimits(); limits != nil && limits.MaxConnectionsPerClient != nil {
			a.MaxPerClient = int(limits.GetMaxConnectionsPerClient())
		}
		if declared := spec.GetProxyProtocol(); declared != nil {
			a.Proxy = compileProxyProtocol(declared)
		}
		doors[k] = a
	}
	return doors
}

func compileProxyProtocol(spec *weirv1.ProxyProtocol) *listener.Proxy {
	t := &listener.Proxy{Timeout: cmp.Or(spec.GetHeaderTimeout().AsDuration(), defaultHeaderTimeout)}
	for _, s := range spec.GetTrustedCidrs() {
		if network, ok := resource.ParseNetwork(s); ok {
			t.Trusted = append(t.Trusted, network)
		}
	}
	return t
}

// Admission is how a connection that is accepted now is taken in.
func (h *handler) Admission() *listener.Admission {
	if h.proxy.cfg.Overload.Shedding() {
		return &listener.Admission{Closed: true}
	}
	if a := h.proxy.current.Load().doors[*h.key.Load()]; a != nil {
		return a
	}
	return &listener.Admission{MaxPerClient: defaultPerClient}
}

// reserved are the descriptors that are left to everything but clients and what
// is opened on their behalf.
const reserved = 256

// newBudget bounds the connections of all listeners together: each may need one to
// a service, too, and a process without a descriptor left cannot even close well.
func newBudget(most int) *listener.Budget {
	if most > 0 {
		return listener.NewBudget(int64(most))
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return nil
	}
	return listener.NewBudget(max(1, (int64(limit.Cur)-reserved)/2))
}
