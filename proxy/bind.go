package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/weirmesh/weir/proxy/listener"
)

// bindKey is a socket: an address ("" for every one) and a port.
type bindKey struct {
	address string
	port    uint16
}

func (k bindKey) String() string { return net.JoinHostPort(k.address, strconv.Itoa(int(k.port))) }

// binding is a socket in use.
type binding struct {
	listener *listener.Listener
	stop     context.CancelFunc // ends what its exchanges wait for
}

// close drains the listener; what is left when ctx ends is cut.
func (b *binding) close(ctx context.Context) error {
	defer b.stop()
	return b.listener.Close(ctx)
}

// drainTime is how long exchanges of a listener that was taken out of the
// configuration may go on; bindRetry the wait before a socket is tried again.
const (
	drainTime = 30 * time.Second
	bindRetry = time.Second
)

// bind opens the sockets that the generation declares and drains those that it
// does not. Those that cannot be opened are tried again by themselves; the
// error names those that could not be opened for the first time. The caller
// holds p.mu.
func (p *Proxy) bind() error {
	p.shown.Lock()
	defer p.shown.Unlock()
	wanted := map[bindKey]string{}
	for l := range p.current.Load().table.Listeners() {
		k := bindKey{port: l.Port}
		if l.Address.IsValid() && l.Address != netip.IPv6Unspecified() {
			k.address = l.Address.String()
		}
		if _, ok := wanted[k]; !ok {
			wanted[k] = l.Gateway.Name + "/" + l.Name
		}
	}
	for k, b := range p.bound {
		if _, ok := wanted[k]; !ok {
			delete(p.bound, k)
			p.drain(b)
		}
	}
	var fresh []error
	failing := map[bindKey]error{}
	for k, name := range wanted {
		if p.bound[k] != nil {
			continue
		}
		socket, err := p.cfg.Listen("tcp", k.String())
		if err != nil {
			failing[k] = fmt.Errorf("open listener %s: %w", name, err)
			if p.failing[k] == nil {
				fresh = append(fresh, failing[k])
			}
			continue
		}
		ctx, stop := context.WithCancel(context.Background())
		h := &handler{proxy: p, port: k.port, ctx: ctx, stop: stop}
		p.bound[k] = &binding{listener.Serve(socket, listener.Config{
			Handler: h, Logger: p.cfg.Logger, Idle: p.cfg.ClientIdle, Head: p.cfg.ClientHead, Stall: p.cfg.ClientStall,
		}), stop}
		p.cfg.Logger.Info("listener open", "listener", name, "address", socket.Addr().String())
	}
	if p.failing = failing; len(failing) > 0 {
		p.retryBind()
	}
	return errors.Join(fresh...)
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

// drain closes a listener beside everything else.
func (p *Proxy) drain(b *binding) {
	p.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		if err := b.close(ctx); err != nil {
			p.cfg.Logger.Warn("exchanges cut", "listener", b.listener.Addr().String(), "after", drainTime)
		}
	})
}
