package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
)

// DialerConfig is what a dialer is made of. Logger alone is required.
type DialerConfig struct {
	Logger *slog.Logger
	// HeadStart is how long a silent QUIC holds back TCP.
	HeadStart time.Duration
	// RetryUDP is how long after a fallback UDP is tried again; then ever more
	// rarely.
	RetryUDP time.Duration
	// Dial opens sockets, "udp" ones connected. Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	// Long enough that a thousand nodes that come at once, to a server that is
	// busy with them, do not all try twice.
	defaultHeadStart = 1500 * time.Millisecond
	defaultRetryUDP  = 30 * time.Second
	// attemptTimeout is how long QUIC may take to prove that UDP works.
	attemptTimeout = 3 * handshakeTimeout / 2
)

// Dialer connects to servers' ports: over QUIC, or over TCP where UDP is
// blocked. It remembers for each address what works.
type Dialer struct {
	cfg  DialerConfig
	gate gate
	life context.Context
	end  context.CancelFunc

	// The constants of these names; tests are in more of a hurry, or in less.
	attemptTimeout, probeTimeout, probeUDPTimeout time.Duration

	mu    sync.Mutex
	paths map[string]*path
}

// NewDialer makes a dialer; Close ends it.
func NewDialer(cfg DialerConfig) *Dialer {
	if cfg.HeadStart == 0 {
		cfg.HeadStart = defaultHeadStart
	}
	if cfg.RetryUDP == 0 {
		cfg.RetryUDP = defaultRetryUDP
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	d := &Dialer{
		cfg: cfg, paths: map[string]*path{},
		attemptTimeout: attemptTimeout, probeTimeout: probeTimeout, probeUDPTimeout: probeTimeout,
	}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Close ends what the dialer does in the background, and closes the QUIC
// connections that it made.
func (d *Dialer) Close() {
	d.end()
	d.gate.shut()
}

var errDialerClosed = errors.New("the dialer is closed")

// speech is what is to be spoken, over either.
type speech struct{ udp, tcp *tls.Config }

func newSpeech(trust Trust, overUDP, overTCP string) speech {
	return speech{udp: marked(trust(overUDP)), tcp: marked(trust(overTCP))}
}

// connection is over one of the two.
type connection struct {
	quic *quic.Conn
	tcp  *tls.Conn
	path *path // of TCP, to be left when it is closed
	// returned is closed when the connection is over TCP and UDP works again.
	returned <-chan struct{}
}

// dial connects to an address.
func (d *Dialer) dial(ctx context.Context, address string, s speech) (*connection, error) {
	if !d.gate.enter() {
		return nil, errDialerClosed
	}
	defer d.gate.leave()
	c, err := d.race(ctx, d.path(address), s)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return c, nil
}

// race gives QUIC its head start, and TCP a chance; where UDP is known to be
// blocked it is the other way round.
func (d *Dialer) race(ctx context.Context, p *path, s speech) (*connection, error) {
	r := &race{dialer: d, path: p, speech: s}
	ctx, cancel := context.WithCancel(ctx)
	defer r.end()
	defer cancel()
	if p.avoidsUDP(time.Now()) {
		r.startTCP(ctx)
	} else {
		r.startQUIC()
	}
	head := time.NewTimer(d.cfg.HeadStart)
	defer head.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), r.quicErr, r.tcpErr)
		case <-head.C:
			r.headStartOver(ctx)
			head.Reset(d.cfg.HeadStart)
		case <-r.quicDone:
			if c, err := r.quicEnded(ctx); c != nil || err != nil {
				return c, err
			}
		case result := <-r.tcp:
			if c, err := r.tcpEnded(result); c != nil || err != nil {
				return c, err
			}
		}
	}
}

// race is one dial under way.
type race struct {
	dialer *Dialer
	path   *path
	speech speech
	// attempt is nil when QUIC has not started, or was handed on.
	attempt  *attempt
	quicDone <-chan struct{}
	tcp      chan tcpResult
	quicErr  error
	tcpErr   error
}

type tcpResult struct {
	conn *tls.Conn
	err  error
}

func (r *race) startQUIC() {
	r.attempt = r.dialer.try(r.path.address, r.speech)
	r.quicDone = r.attempt.finished
}

// headStartOver brings in the other one, unless QUIC has had some answer, if
// not yet the last.
func (r *race) headStartOver(ctx context.Context) {
	switch {
	case r.attempt == nil:
		r.startQUIC()
	case r.quicErr != nil || !r.attempt.heard():
		r.startTCP(ctx)
	}
}

func (r *race) startTCP(ctx context.Context) {
	if r.tcp != nil {
		return
	}
	results := make(chan tcpResult) // who waits no more has ended ctx
	r.tcp = results
	r.dialer.gate.run(func() {
		conn, err := r.dialer.dialTCP(ctx, r.path.address, r.speech.tcp)
		select {
		case results <- tcpResult{conn, err}:
		case <-ctx.Done():
			if conn != nil {
				_ = conn.Close()
			}
		}
	})
}

// quicEnded returns nil and nil while TCP may still do.
func (r *race) quicEnded(ctx context.Context) (*connection, error) {
	conn, err := r.attempt.result()
	if err == nil {
		r.attempt = nil
		r.path.works()
		return &connection{quic: conn}, nil
	}
	r.quicErr = err
	if answered(err) || r.tcpErr != nil {
		// What the server had to say it would say again over TCP.
		return nil, errors.Join(err, r.tcpErr)
	}
	r.quicDone = nil
	r.startTCP(ctx)
	return nil, nil
}

// tcpEnded returns nil and nil while QUIC may still do.
func (r *race) tcpEnded(result tcpResult) (*connection, error) {
	if result.err == nil {
		returned := r.path.enter(r.attempt, r.speech)
		r.attempt = nil
		return &connection{tcp: result.conn, path: r.path, returned: returned}, nil
	}
	r.tcpErr = result.err
	if r.attempt == nil {
		r.startQUIC() // it was held to be blocked; now nothing else is left
		return nil, nil
	}
	if r.quicErr != nil {
		return nil, errors.Join(r.quicErr, r.tcpErr)
	}
	return nil, nil
}

func (r *race) end() {
	if r.attempt != nil {
		r.attempt.abandon()
	}
}

// answered tells whether an error is the peer's word, or ours about the peer,
// rather than silence.
func answered(err error) bool {
	var said *quic.TransportError
	if errors.As(err, &said) {
		return said.Remote || said.ErrorCode.IsCryptoError()
	}
	var mine *disbelief
	return errors.As(err, &mine)
}

// isRefused tells whether the peer's machine said that nobody listens.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func (d *Dialer) dialTCP(ctx context.Context, address string, config *tls.Config) (*tls.Conn, error) {
	to, err := resolve(ctx, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := d.cfg.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	tuneTCP(raw)
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}
