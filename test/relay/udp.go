package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// maxClients is how many clients a UDP relay remembers; the one that was
// silent for longest is forgotten first.
const maxClients = 1024

// maxPacket is the largest UDP payload.
const maxPacket = 65535

// A UDPRelay stands between any number of clients and one far end, to which
// each client appears as a socket of its own.
type UDPRelay struct {
	t          testing.TB
	seed       uint64
	socket     net.PacketConn
	dial       Dial
	maxClients int
	conditions atomic.Pointer[Conditions]
	stats      counters
	running    sync.WaitGroup

	// Of the goroutine that reads the socket alone.
	clients map[netip.AddrPort]*client
	count   int // of clients so far
	clock   int // of packets so far
}

type client struct {
	there  *line
	far    net.Conn
	end    context.CancelFunc
	active int // when it last sent, by the relay's clock
}

// UDP relays what comes to the socket, which it closes when the test ends.
func UDP(t testing.TB, seed uint64, socket net.PacketConn, dial Dial) *UDPRelay {
	r := newUDP(t, seed, socket, dial)
	r.start()
	return r
}

func newUDP(t testing.TB, seed uint64, socket net.PacketConn, dial Dial) *UDPRelay {
	r := &UDPRelay{t: t, seed: seed, socket: socket, dial: dial, maxClients: maxClients, clients: map[netip.AddrPort]*client{}}
	r.conditions.Store(&Conditions{})
	return r
}

func (r *UDPRelay) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.running.Go(func() { r.serve(ctx) })
	r.t.Cleanup(func() {
		cancel()
		r.socket.Close()
		r.running.Wait()
	})
}

// Addr is where clients send to.
func (r *UDPRelay) Addr() net.Addr { return r.socket.LocalAddr() }

// Set changes the conditions of all lines, for packets that come from now on.
func (r *UDPRelay) Set(c Conditions) {
	r.t.Helper()
	if err := c.validate(); err != nil {
		r.t.Errorf("relay: %v", err)
		return
	}
	r.conditions.Store(&c)
}

// Stats count what has happened so far.
func (r *UDPRelay) Stats() Stats { return r.stats.read() }

func (r *UDPRelay) now() Conditions { return *r.conditions.Load() }

// serve reads what clients send, until the socket is closed.
func (r *UDPRelay) serve(ctx context.Context) {
	buf := make([]byte, maxPacket)
	for {
		n, addr, err := r.socket.ReadFrom(buf)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // about a packet that was sent before
		}
		c, err := r.client(ctx, addr)
		if err != nil {
			r.t.Errorf("relay: dial far end: %v", err)
			continue
		}
		c.there.send(ctx, append([]byte(nil), buf[:n]...))
	}
}

// client finds the lines of a client, or makes them.
func (r *UDPRelay) client(ctx context.Context, addr net.Addr) (*client, error) {
	key := addr.(*net.UDPAddr).AddrPort()
	r.clock++
	c := r.clients[key]
	if c == nil {
		if len(r.clients) >= r.maxClients {
			r.forgetOldest()
		}
		far, err := r.dial(ctx)
		if err != nil {
			return nil, err
		}
		c = r.connect(ctx, addr, far)
		r.clients[key] = c
	}
	c.active = r.clock
	return c, nil
}

func (r *UDPRelay) connect(ctx context.Context, addr net.Addr, far net.Conn) *client {
	ctx, cancel := context.WithCancel(ctx)
	number := r.count
	r.count++
	// A packet that cannot be delivered is lost, as on any network.
	c := &client{far: far, end: cancel}
	c.there = newLine(newShaper(r.seed, number, there), r.now, &r.stats, func(p []byte) { far.Write(p) })
	fromFar := newLine(newShaper(r.seed, number, back), r.now, &r.stats, func(p []byte) { r.socket.WriteTo(p, addr) })
	r.running.Go(func() { c.there.run(ctx) })
	r.running.Go(func() { fromFar.run(ctx) })
	r.running.Go(func() { readFar(ctx, far, fromFar) })
	context.AfterFunc(ctx, func() { far.Close() }) // which ends readFar
	return c
}

// readFar reads what the far end sends to one client.
func readFar(ctx context.Context, far net.Conn, l *line) {
	buf := make([]byte, maxPacket)
	for {
		n, err := far.Read(buf)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			l.send(ctx, append([]byte(nil), buf[:n]...))
		}
		// Other errors are about packets that were sent before: refused, unreachable.
	}
}

func (r *UDPRelay) forgetOldest() {
	var oldest netip.AddrPort
	for key, c := range r.clients {
		if found := r.clients[oldest]; found == nil || c.active < found.active {
			oldest = key
		}
	}
	r.clients[oldest].end()
	delete(r.clients, oldest)
}
