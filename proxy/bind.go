package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weirmesh/weir/proxy/listener"
)

// bindKey is a socket: an address ("" for every one) and a port.
type bindKey struct {
	address string
	port    uint16
	udp     bool // it is for HTTP/3, beside the one that is not
}

func (k bindKey) String() string {
	text := net.JoinHostPort(k.address, strconv.Itoa(int(k.port)))
	if k.udp {
		text += "/udp"
	}
	return text
}

// overUDP is the socket for HTTP/3 beside one.
func (k bindKey) overUDP() bindKey { return bindKey{k.address, k.port, true} }

// overlaps says that two sockets cannot be had at once: the same port, at every
// address and at one of them.
func (k bindKey) overlaps(other bindKey) bool {
	return k.port == other.port && k.address != other.address && (k.address == "" || other.address == "")
}

// binding is a socket in use.
type binding struct {
	name     string // of the listener that it is for: gateway/listener
	listener *listener.Listener
	quic     *listener.QUIC // nil: it speaks no HTTP/3, or cannot
	handler  *handler
}

// Addr is where it listens.
func (b *binding) Addr() net.Addr { return b.listener.Addr() }

// Close drains the listener; what is left when ctx ends is cut.
func (b *binding) Close(ctx context.Context) error {
	if b.quic == nil {
		return b.listener.Close(ctx)
	}
	var overUDP error
	var both sync.WaitGroup
	both.Go(func() { overUDP = b.quic.Close(ctx) })
	err := b.listener.Close(ctx)
	both.Wait()
	return errors.Join(err, overUDP)
}

// drainTime is how long exchanges of a listener that was taken out of the
// configuration may go on; bindRetry the wait before a socket is tried again.
const (
	drainTime = 30 * time.Second
	bindRetry = time.Second
)

// bind opens the sockets that the generation declares and drains those that it
// does not. A listener that was moved to where it cannot be opened stays where
// it was meanwhile. Those that cannot be opened are tried again by themselves;
// the error names those that could not be opened for the first time, but for
// those of HTTP/3, which are warned of. The caller holds p.mu.
func (p *Proxy) bind() error {
	p.shown.Lock()
	defer p.shown.Unlock()
	wanted := p.wanted()
	failing := map[bindKey]error{}
	for k, name := range wanted {
		if err := p.open(k, name, wanted); err != nil {
			failing[k] = fmt.Errorf("open listener %s: %w", name, err)
		} else if err := p.settleQUIC(k); err != nil {
			failing[k.overUDP()] = fmt.Errorf("open listener %s for HTTP/3 (it serves without): %w", name, err)
		}
	}
	p.drainUnwanted(wanted, failing)
	var fresh []error
	for k, err := range failing {
		switch {
		case p.failing[k] != nil:
		case k.udp: // no reason to hold anything back: clients do without
			p.cfg.Logger.Warn("listener serves without HTTP/3", "address", k.String(), "error", err)
		default:
			fresh = append(fresh, err)
		}
	}
	if p.failing = failing; len(failing) > 0 {
		p.retryBind()
	}
	return errors.Join(fresh...)
}

// wanted is the sockets that the generation declares, each with the name of a
// listener that it is for.
func (p *Proxy) wanted() map[bindKey]string {
	wanted := map[bindKey]string{}
	for l := range p.current.Load().table.Listeners() {
		k := socketOf(l)
		if _, ok := wanted[k]; !ok {
			wanted[k] = l.Gateway.Name + "/" + l.Name
		}
	}
	return wanted
}

// open opens a socket, unless it is open.
func (p *Proxy) open(k bindKey, name string, wanted map[bindKey]string) error {
	if b := p.bound[k]; b != nil {
		b.name = name
		b.handler.serve(k)
		return nil
	}
	socket, err := p.cfg.Listen("tcp", k.String())
	if errors.Is(err, syscall.EADDRINUSE) && p.makeRoom(k, wanted) {
		socket, err = p.cfg.Listen("tcp", k.String())
	}
	if err != nil {
		return err
	}
	h := &handler{proxy: p}
	h.serve(k)
	l := listener.Serve(socket, p.listenerConfig(h))
	p.bound[k] = &binding{name: name, listener: l, handler: h}
	p.cfg.Logger.Info("listener open", "listener", name, "address", socket.Addr().String())
	return nil
}

// settleQUIC opens a socket's counterpart for HTTP/3, or drains it, as declared.
func (p *Proxy) settleQUIC(k bindKey) error {
	b := p.bound[k]
	socket := b.handler.socket(p.current.Load())
	wanted := socket != nil && socket.quic
	switch {
	case wanted && b.quic == nil:
		return p.openQUIC(k, b)
	case !wanted && b.quic != nil:
		b.handler.altSvc.Store(nil)
		p.drain(b.quic)
		b.quic = nil
	}
	return nil
}

func (p *Proxy) openQUIC(k bindKey, b *binding) error {
	socket, err := p.cfg.ListenPacket("udp", net.JoinHostPort(k.address, strconv.Itoa(int(k.port))))
	if err != nil {
		return err
	}
	if b.quic, err = listener.ServeQUIC(socket, p.listenerConfig(b.handler), b.handler.quicTerms); err != nil {
		return err
	}
	value := fmt.Appendf(nil, `h3=":%d"; ma=86400`, k.port)
	b.handler.altSvc.Store(&value)
	p.cfg.Logger.Info("listener open for HTTP/3", "listener", b.name, "address", socket.LocalAddr().String())
	return nil
}

func (p *Proxy) listenerConfig(h *handler) listener.Config {
	var resetKey [32]byte
	var refuses func(*x509.Certificate) bool
	if p.cfg.Mesh != nil {
		resetKey, refuses = p.cfg.Mesh.ResetKey, p.cfg.Mesh.IsShutOut
	}
	return listener.Config{
		Refuses: refuses,
		Handler: h, Security: h, Admission: h.Admission, Streams: h, Budget: p.budget, Crowd: &h.crowd, Logger: p.cfg.Logger, Handshake: p.cfg.ClientHead,
		Idle: p.cfg.ClientIdle, Head: p.cfg.ClientHead, Stall: p.cfg.ClientStall, Linger: p.cfg.ClientLinger, HalfClosed: p.cfg.ClientHalfClosed, ResetKey: resetKey,
	}
}

// makeRoom closes sockets of our own that are in a new one's way and that nobody
// wants any more, as when a listener goes from one address to every one.
func (p *Proxy) makeRoom(k bindKey, wanted map[bindKey]string) (made bool) {
	for old, b := range p.bound {
		if _, ok := wanted[old]; ok || !old.overlaps(k) {
			continue
		}
		delete(p.bound, old)
		b.listener.StopAccepting()
		p.drain(b)
		made = true
	}
	return made
}

// drainUnwanted drains what is not declared any more, but for what stands in for
// a listener that cannot be opened where it is declared now.
func (p *Proxy) drainUnwanted(wanted map[bindKey]string, failing map[bindKey]error) {
	for old, b := range p.bound {
		if _, ok := wanted[old]; ok {
			continue
		}
		stays := false
		for k, err := range failing {
			if wanted[k] == b.name {
				b.handler.serve(k)
				failing[k] = fmt.Errorf("%w (until it can be, it stays at %s)", err, b.listener.Addr())
				stays = true
				break
			}
		}
		if !stays {
			delete(p.bound, old)
			p.drain(b)
		}
	}
}

// retryBind tries again later, until all that is declared is open.
func (p *Proxy) retryBind() {
	if p.retry != nil {
		p.retry.Stop()
	}
	p.retry = time.AfterFunc(bindRetry, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.stopped {
			return
		}
		_ = p.bind() // what still fails was reported when it first did, and is in p.failing
	})
}

// drainable is what takes its time to close.
type drainable interface {
	Addr() net.Addr
	Close(ctx context.Context) error
}

// drain closes something beside everything else.
func (p *Proxy) drain(d drainable) {
	p.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			p.cfg.Logger.Warn("exchanges cut", "listener", d.Addr().String(), "after", drainTime)
		}
	})
}

// Sockets are those that are open now, by the addresses that they were asked for
// at: those of listeners, and that of the admin address.
func (p *Proxy) Sockets() map[string]net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	sockets := map[string]net.Listener{}
	for k, b := range p.bound {
		sockets[k.String()] = b.listener.Socket()
	}
	if p.adminOn != nil {
		sockets[p.cfg.AdminAddress] = p.adminOn
	}
	return sockets
}

// Problem says which listeners that are declared are not served, which modules do not
// run, and why; "": all do. That one does without HTTP/3 is none.
func (p *Proxy) Problem() string {
	var all []string
	if clash := p.current.Load().clash; clash != nil {
		all = append(all, strings.Split(clash.Error(), "\n")...)
	}
	p.shown.Lock()
	defer p.shown.Unlock()
	for k, err := range p.failing {
		if !k.udp {
			all = append(all, err.Error())
		}
	}
	for _, why := range p.versions.distrusted {
		all = append(all, why)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
