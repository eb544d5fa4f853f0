// Package proxy is the request path, and the swap from one configuration to
// the next.
//
//	Update ─▶ desired ─compile─▶ generation ─swap─▶ requests that begin from now on
//	client ─▶ listener ─▶ router ─▶ policies ─▶ filters ─▶ balancer ─▶ upstream
//
// # Promises
//
//   - A request is served under one generation from its first byte to its last.
//   - An update that does not compile changes nothing: it is returned as an
//     error, the last good generation stays, and the next update is compiled
//     with what was refused still in mind.
//   - Who may call is an exception: a key that is revoked is refused from then on, even
//     where the update that says so does not compile.
//   - What one changed route costs depends on that route, not on how many there
//     are: the table, the pools and the policies of all others are shared.
//   - Whatever goes wrong is answered as RFC 9457 problem+json that says who is
//     to blame, and only what is safe to try again is tried again.
//
// # What outlives a generation
//
// Sockets, connections to endpoints, compiled policies and metrics live in
// registries keyed by what they are. A generation holds them while it, or one
// before it, still serves a request.
package proxy

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/listener"
	"github.com/weirmesh/weir/proxy/mirror"
	"github.com/weirmesh/weir/proxy/overload"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// Config is what a Proxy needs. It is checked by New and never changed.
type Config struct {
	// Policies makes what Policy resources declare.
	Policies policy.Maker
	// PluginKeys: one of them must have signed each module, whatever is declared.
	// None: nothing is asked for but what is.
	PluginKeys []ed25519.PublicKey
	// Consumers is told who may call; nil: nobody is told.
	Consumers Consumers
	Metrics   *telemetry.Metrics
	// Meter counts what consumers are answered; nil: nobody does.
	Meter Meter
	// Access is nil for no access log.
	Access *telemetry.AccessLog
	Logger *slog.Logger
	// AdminAddress is where /metrics, /healthz, /readyz and the debug pages are
	// served; empty: nowhere.
	AdminAddress string
	// ClientIdle, ClientHead and ClientStall bound what clients may take their
	// time for: Idle, Head and Stall of listener.Config, whose defaults hold.
	ClientIdle, ClientHead, ClientStall time.Duration
	// ClientHalfClosed is how long a client that has closed its side is served with
	// nothing sent to it: listener.Config's HalfClosed, whose default holds.
	ClientHalfClosed time.Duration
	// ClientLinger is how long idle connections stay when a listener is closed:
	// listener.Config's Linger.
	ClientLinger time.Duration
	// Listen opens the socket of a listener, ListenAdmin that of the admin
	// address; nil: net.Listen.
	Listen, ListenAdmin func(network, address string) (net.Listener, error)
	// ListenPacket opens a listener's socket for HTTP/3; nil: net.ListenPacket.
	ListenPacket func(network, address string) (net.PacketConn, error)
	// Mesh is what the proxy is to other proxies; nil: nothing, and registered
	// endpoints are not reached.
	Mesh *Mesh
	// Zone is where the proxy is: endpoints whose label `zone` is the same may
	// be preferred. Empty: nowhere in particular.
	Zone string
	// Overload says when there is too little memory for new work; nil: never.
	Overload *overload.Monitor
	// MaxConnections of clients, over all listeners; 0: what the process has file
	// descriptors for.
	MaxConnections int
	// Lookup resolves the names of endpoints; nil: the system's resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Draw returns a random number from 0 up to but not 1, by which requests are
	// chosen for faults and mirrors; nil: rand.Float64.
	Draw func() float64
}

// Update is a change of what the proxy must know. A snapshot replaces all that
// was known.
type Update struct {
	Snapshot bool
	Revision uint64
	Puts     []*weirv1.Resource
	Deletes  []resource.Ref
}

// Proxy serves requests. Make it with [New], feed it with [Proxy.Update].
type Proxy struct {
	cfg     Config
	current atomic.Pointer[generation]
	lives   generations
	upstreams
	backends backends
	mirrors  *mirror.Sender
	// calling ends when policies may make no more calls.
	calling context.Context
	hush    context.CancelFunc
	admin   *http.Server
	adminOn net.Listener
	done    sync.WaitGroup

	unrouted *telemetry.Series // what no route matches
	// unroutedConnections are those that carry no HTTP and have no route.
	unroutedConnections *telemetry.Connections
	budget              *listener.Budget
	shed                atomic.Uint64 // requests turned away because memory is short
	tickets             *tickets
	dated               atomic.Pointer[dated]

	ahead    ahead
	mu       sync.Mutex // one update at a time
	desired  *desired
	versions versions
	bound    map[bindKey]*binding
	parsed   map[*weirv1.Certificate]*tls.Certificate // those in use
	retry    *time.Timer
	stopped  bool
	failing  map[bindKey]error // sockets that could not be opened
	refused  string            // why the newest update is not in force; "" when it is
	// shown is held, with mu, by those who change desired, bound, failing or
	// refused, and alone by those who show them: an update may take seconds.
	shown sync.Mutex
}

// New returns a proxy that serves nothing yet but its admin address.
func New(cfg Config) (*Proxy, error) {
	if cfg.Listen == nil {
		cfg.Listen = net.Listen
	}
	if cfg.ListenPacket == nil {
		cfg.ListenPacket = net.ListenPacket
	}
	if cfg.ListenAdmin == nil {
		cfg.ListenAdmin = net.Listen
	}
	if cfg.Draw == nil {
		cfg.Draw = rand.Float64
	}
	p := &Proxy{cfg: cfg, upstreams: newUpstreams(cfg), desired: newDesired(), ahead: ahead{by: map[resource.Ref]uint64{}}, versions: newVersions(cfg.PluginKeys), bound: map[bindKey]*binding{}, tickets: newTickets(), mirrors: mirror.NewSender()}
	p.calling, p.hush = context.WithCancel(context.Background())
	first := p.newGeneration(nil, 0, 0)
	p.lives.list = append(p.lives.list, first)
	p.current.Store(first)
	p.unrouted = cfg.Metrics.Route("")
	p.unroutedConnections = cfg.Metrics.Connections("")
	p.budget = newBudget(cfg.MaxConnections)
	if err := p.serveAdmin(); err != nil {
		p.upstreams.close()
		return nil, err
	}
	return p, nil
}

// Update brings a change into force, or says why it is not. It returns once
// every request that begins from then on is served under the new revision. A
// listener whose socket cannot be opened is an error too, but one that does not
// hold back the rest; it is tried again by itself.
func (p *Proxy) Update(ctx context.Context, u Update) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return fmt.Errorf("update configuration: the proxy is shut down")
	}
	p.show(func() { p.desired.merge(u) })
	clear(p.versions.checked)
	later := p.tellConsumers(u.Revision)
	next, err := p.compile(ctx, u.Revision)
	if err != nil {
		later()
		p.cfg.Metrics.Refused.Inc()
		p.show(func() { p.refused = err.Error() })
		return fmt.Errorf("compile revision %d: %w", u.Revision, err)
	}
	p.swap(next)
	later()
	p.desired.settled()
	p.forgetVersions()
	p.cfg.Metrics.Revision.Set(float64(u.Revision))
	p.show(func() { p.refused = "" })
	return errors.Join(next.clash, p.bind())
}

// show changes what the admin address shows. The caller holds p.mu.
func (p *Proxy) show(change func()) {
	p.shown.Lock()
	defer p.shown.Unlock()
	change()
}

// Revision is the configuration in force; 0: none yet.
func (p *Proxy) Revision() uint64 { return p.current.Load().revision }

// Shutdown stops accepting, lets requests in flight end until ctx does, and
// frees everything.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.stopped = true
	if p.retry != nil {
		p.retry.Stop()
	}
	bound := p.bound
	p.show(func() { p.bound = map[bindKey]*binding{} })
	p.mu.Unlock()

	var first error
	var drains sync.WaitGroup
	var errs sync.Mutex
	for _, b := range bound {
		drains.Go(func() {
			if err := b.Close(ctx); err != nil {
				errs.Lock()
				first = err
				errs.Unlock()
			}
		})
	}
	drains.Wait()
	if p.admin != nil {
		_ = p.admin.Close()
	}
	p.done.Wait() // the admin address, and listeners that were taken out of use before
	p.mirrors.Close()
	p.hush()
	p.retireAll()
	p.upstreams.close()
	return first
}
