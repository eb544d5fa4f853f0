// Package listener owns the sockets that clients connect to: it accepts, reads
// requests, hands each as an exchange to a Handler, and writes the answer.
//
//	accept ─▶ admit ─▶ PROXY header ─▶ TLS ─▶ connection (one goroutine) ─▶ [ read head ─▶ Serve ─▶ relay ─▶ Finish ]…
//	                               │        └▶ HTTP/2 by ALPN, or by its preface: package http2
//	                               └▶ what carries no HTTP: ServeStream
//	UDP ─▶ admit ─▶ QUIC ─▶ connection ─▶ one goroutine for each exchange: package http3
//
// # Promises
//
//   - One goroutine serves a connection by HTTP/1.1, the exchange's upstream I/O
//     included; by HTTP/2 and HTTP/3, one serves each exchange.
//   - A connection that waits for a request holds no exchange, and in the clear no
//     buffer either.
//   - What bounds the connections of a port bounds those over TCP and UDP together,
//     and they are counted until they have ended.
//   - A client that leaves while its exchange is served is noticed: the exchange is
//     cut. By HTTP/1.1 that is so once its connection breaks, or a while after it has
//     closed its side: it may still be reading.
//   - Finish follows Serve exactly once, whatever the client does.
//   - Close stops accepting at once, lets exchanges in flight end, closes
//     connections that have been told so with their answer, others after Linger
//     without a request, and cuts what is left when its context ends.
package listener

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/hangup"
)

// Handler answers exchanges.
type Handler interface {
	// NewSession returns a place to serve one exchange at a time. The listener
	// uses a session again for other exchanges, and gives it up with Close.
	NewSession() Session
}

// Session serves one exchange at a time.
type Session interface {
	// Begin prepares for an exchange: what was cut before is over. It is called
	// before anyone can call Cut.
	Begin()
	// Serve fills x.Response. What goes wrong becomes an answer.
	Serve(x *exchange.Exchange)
	// Finish is called once the answer was sent, or was given up with err.
	Finish(x *exchange.Exchange, sent int64, err error)
	// Reject is told of a message that was no request, and returns the body to
	// answer it with.
	Reject(x *exchange.Exchange, status int, reason string)
	// Cut ends what Serve or a body waits for, so that they return soon. It is
	// called by another goroutine, when the client has gone or the listener has no
	// more time, and does not wait.
	Cut()
}

// Config is what a Listener needs.
type Config struct {
	Handler Handler
	Logger  *slog.Logger
	// Admission says how connections are taken in; nil: as they come. Streams
	// serves those that carry no HTTP, Budget bounds how many there are. Crowd is
	// what a Listener and a QUIC of one port have in common; nil: nothing.
	Admission func() *Admission
	Streams   StreamHandler
	Budget    *Budget
	Crowd     *Crowd
	// Port is the listener's as declared; it chooses the routes.
	Port uint16
	// Security secures connections; nil: none.
	Security Security
	// Refuses tells whether a client that the terms of its connection have verified
	// (Verifier) is shut out since then; nil: none is. See CutPeers.
	Refuses func(*x509.Certificate) bool
	// Handshakes is how many clients may shake hands at once, Handshake how long
	// one may take, its wait for a place included. Zero: 512, 10 s.
	Handshakes int
	Handshake  time.Duration
	// Linger is how long a connection that waits for a request may go on to do so
	// when the listener is closed: a client that is about to send one has not seen
	// yet that the connection ends. Zero: it is closed at once.
	Linger time.Duration
	// Idle bounds the wait for the next request, Head the wait for the rest of
	// a head, Stall the wait for the client to take or send part of a body.
	// Zero: 75 s, 10 s, 60 s.
	Idle, Head, Stall time.Duration
	// HalfClosed is how long the exchange of a client by HTTP/1.1 that has closed its
	// side of the connection may go on with nothing sent to it. Zero: 1 s.
	HalfClosed time.Duration
	// ResetKey is secret, and the same after a restart: by it a QUIC tells clients of
	// connections that it knows nothing of, since it was restarted, that they are over.
	// Zero: they find out by its silence.
	ResetKey [32]byte
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		at  *time.Duration
		def time.Duration
	}{{&c.Idle, 75 * time.Second}, {&c.Head, 10 * time.Second}, {&c.Stall, 60 * time.Second}, {&c.HalfClosed, time.Second}, {&c.Handshake, 10 * time.Second}} {
		if *d.at == 0 {
			*d.at = d.def
		}
	}
	if c.Crowd == nil {
		c.Crowd = new(Crowd)
	}
	if c.Handshakes == 0 {
		c.Handshakes = 512
	}
}

// Listener serves one socket. Make it with [Serve].
type Listener struct {
	cfg      Config
	socket   net.Listener
	draining atomic.Bool
	cutting  atomic.Bool
	accepted atomic.Uint64
	// unsecured counts handshakes that failed.
	unsecured  atomic.Uint64
	handshakes chan struct{} // a place for each that is under way
	sessions   sync.Pool
	watcher    *hangup.Watcher // of clients that leave; nil: they are found out later
	refusals

	mu    sync.Mutex
	conns map[tracked]struct{}
	done  sync.WaitGroup // the accept loop and every connection
}

// Serve starts to serve a socket, which the Listener owns from then on.
func Serve(socket net.Listener, cfg Config) *Listener {
	cfg.setDefaults()
	l := &Listener{cfg: cfg, socket: socket, conns: map[tracked]struct{}{},
		handshakes: make(chan struct{}, cfg.Handshakes)}
	var err error
	if l.watcher, err = hangup.New(); err != nil {
		cfg.Logger.Warn("clients that leave are noticed late", "listener", l.Addr().String(), "error", err)
	}
	l.sessions.New = func() any { return &place{Session: cfg.Handler.NewSession()} }
	l.done.Go(l.accept)
	return l
}

// place is where one exchange is served; connections borrow them.
type place struct {
	Session
	x exchange.Exchange
}

// Exchange implements http2.Place.
func (p *place) Exchange() *exchange.Exchange { return &p.x }

func (l *Listener) take() *place { return l.sessions.Get().(*place) }

func (l *Listener) give(p *place) {
	p.x.Reset()
	l.sessions.Put(p)
}

// Socket is what is listened on.
func (l *Listener) Socket() net.Listener { return l.socket }

// Addr is the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// Connections counts those open now and those ever accepted.
func (l *Listener) Connections() (open int, accepted uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns), l.accepted.Load()
}

// Unsecured counts the handshakes that failed.
func (l *Listener) Unsecured() uint64 { return l.unsecured.Load() }

func (l *Listener) accept() {
	pause := time.Duration(0)
	for {
		nc, err := l.socket.Accept()
		if err != nil {
			if l.draining.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: wait, and let some be closed.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.cfg.Logger.Warn("accept connection", "listener", l.Addr().String(), "error", err, "pause", pause)
			time.Sleep(pause)
			continue
		}
		pause = 0
		e, ok := l.admit(nc)
		e.id = l.accepted.Add(1)
		if !ok {
			nc.Close()
			continue
		}
		var c tracked
		if e.admission.Streams {
			c = newStream(e)
		} else {
			c = newConn(e)
		}
		if !l.track(c) {
			nc.Close()
			c.base().leave()
			return
		}
		l.done.Go(c.serve)
	}
}

func (l *Listener) track(c tracked) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining.Load() {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Listener) forget(c tracked) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.base().leave()
}

// StopAccepting is the first step of Close, for those who need the address: it is
// free when this returns.
func (l *Listener) StopAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining.Store(true)
	_ = l.socket.Close() // first: who is turned away here must find no one at the door
	for c := range l.conns {
		if l.cfg.Linger == 0 || c.isTold() { // who speaks HTTP/2 is
			c.closeIfIdle()
		}
	}
}

// patience is how long a connection may wait for a request. One that was idle
// before the draining began does not see it here: closeIdle closes that.
func (l *Listener) patience() time.Duration {
	if l.cfg.Linger > 0 && l.draining.Load() {
		return l.cfg.Linger
	}
	return l.cfg.Idle
}

func (l *Listener) closeIdle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.closeIfIdle()
	}
}

// Close drains the listener: see the package page. It returns ctx's error when
// exchanges had to be cut.
func (l *Listener) Close(ctx context.Context) error {
	defer l.watcher.Close()
	l.StopAccepting()
	drained := make(chan struct{})
	go func() { l.done.Wait(); close(drained) }() // ends with the last connection, which is cut below at the latest
	linger := time.NewTimer(l.cfg.Linger)
	defer linger.Stop()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	case <-linger.C:
		l.closeIdle()
		select {
		case <-drained:
			return nil
		case <-ctx.Done():
		}
	}
	l.cutting.Store(true)
	l.mu.Lock()
	for c := range l.conns {
		c.cut()
	}
	l.mu.Unlock()
	<-drained
	return ctx.Err()
}
