package nodeport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// probeTimeout is how long each layer may take.
	probeTimeout = 5 * time.Second
	// maxProbed addresses of a name are tried.
	maxProbed = 8
)

// Probe is what was found on the way to a server, layer by layer. A layer that
// could not be looked at, for one below it fails, has no error.
type Probe struct {
	// DNS is why the name of the host was not found, or no address at all.
	DNS error
	// TCP and UDP are why nothing answers over the one and the other.
	TCP, UDP error
	// TLS is why the two sides do not believe each other, found over either.
	TLS error
	// Addresses are those that the name stands for.
	Addresses []string
	// RTT is how long a connection over TCP took, or where there is none the
	// handshake over UDP.
	RTT time.Duration
}

// Probe looks how far the way to a server's port goes, over TCP and UDP alike,
// with nothing of what the dialer remembers. One address of a name that answers
// is enough. It takes some seconds where nothing does.
func (d *Dialer) Probe(ctx context.Context, address string, trust Trust) Probe {
	if !d.gate.enter() {
		return Probe{TCP: errDialerClosed, UDP: errDialerClosed}
	}
	defer d.gate.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	addresses, err := d.lookUp(ctx, address)
	if err != nil {
		return Probe{DNS: err}
	}
	speech := newSpeech(trust, protoHTTP3, protoHTTP2)
	tcp, udp := make([]wayFound, len(addresses)), make([]wayFound, len(addresses))
	var both sync.WaitGroup
	for i, to := range addresses {
		both.Go(func() { tcp[i] = d.probeOverTCP(ctx, to, speech.tcp) })
		both.Go(func() { udp[i] = d.probeOverUDP(ctx, to, speech) })
	}
	both.Wait()
	overTCP, overUDP := bestWay(tcp), bestWay(udp)
	p := Probe{Addresses: addresses, TCP: overTCP.err, UDP: overUDP.err, TLS: overTCP.tls, RTT: overTCP.rtt}
	if p.TLS == nil {
		p.TLS = overUDP.tls
	}
	if p.RTT == 0 {
		p.RTT = overUDP.rtt
	}
	return p
}

// lookUp is all addresses of a name, with the port.
func (d *Dialer) lookUp(ctx context.Context, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.probeTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, ip := range ips[:min(len(ips), maxProbed)] {
		found = append(found, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return found, nil
}

// wayFound is one address over one of the two: err is about the way, tls about
// who is at its end.
type wayFound struct {
	err, tls error
	rtt      time.Duration
}

// bestWay is one that works, or goes furthest; where none goes anywhere, it
// says why for each.
func bestWay(ways []wayFound) wayFound {
	var distrusted, silent wayFound
	for _, w := range ways {
		switch {
		case w.err == nil && w.tls == nil:
			return w
		case w.err == nil:
			distrusted = w
		default:
			silent.err = errors.Join(silent.err, w.err)
		}
	}
	if distrusted.tls != nil {
		return distrusted
	}
	return silent
}

func (d *Dialer) probeOverTCP(ctx context.Context, to string, config *tls.Config) wayFound {
	ctx, cancel := context.WithTimeout(ctx, d.probeTimeout)
	defer cancel()
	begun := time.Now()
	raw, err := d.cfg.Dial(ctx, "tcp", to)
	if err != nil {
		return wayFound{err: err} // which says over what, and to where
	}
	w := wayFound{rtt: max(time.Since(begun), 1)}
	conn := tls.Client(raw, config)
	defer conn.Close()
	if err = conn.HandshakeContext(ctx); err == nil {
		err = greeted(ctx, conn)
	}
	return w.judged(fmt.Sprintf("TCP to %s", to), err)
}

// greeted waits for a server's first word: what it thinks of our certificate it
// says when the handshake is over for us.
func greeted(ctx context.Context, conn *tls.Conn) error {
	if by, bounded := ctx.Deadline(); bounded {
		_ = conn.SetDeadline(by)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	// HTTP/2: a client's preface, and settings with nothing in them.
	hello := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	// A server that has hung up already has left its reason to be read.
	_, writeErr := conn.Write([]byte(hello))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return errors.Join(err, writeErr)
	}
	return nil
}

func (d *Dialer) probeOverUDP(ctx context.Context, to string, s speech) wayFound {
	ctx, cancel := context.WithTimeout(ctx, d.probeUDPTimeout)
	defer cancel()
	begun, a := time.Now(), new(attempt)
	conn, err := d.dialQUIC(ctx, to, s, a)
	var w wayFound
	if err == nil {
		w.rtt = max(time.Since(begun), 1)
		// HTTP/3: a server that lets us in opens a stream for its settings.
		_, err = conn.AcceptUniStream(ctx)
		_ = conn.CloseWithError(codeGoingAway, "")
	}
	return w.judged(fmt.Sprintf("UDP to %s", to), err)
}

// judged sorts an error: what the peer is, or the way to it.
func (w wayFound) judged(over string, err error) wayFound {
	switch trouble := distrust(err); {
	case err == nil:
	case trouble != nil:
		w.tls = trouble
	default:
		w.err = fmt.Errorf("%s: %w", over, err)
	}
	return w
}

// distrust is an error of a handshake in words, if it is about certificates.
func distrust(err error) error {
	var mine *disbelief
	var overQUIC *quic.TransportError
	var overTCP *net.OpError
	switch {
	case errors.As(err, &mine):
		return mine.cause
	case errors.As(err, &overQUIC) && overQUIC.ErrorCode.IsCryptoError():
		if overQUIC.Remote {
			return refusal(tls.AlertError(overQUIC.ErrorCode & 0xff))
		}
		return err
	case errors.As(err, &overTCP) && overTCP.Op == "remote error":
		// The type of an alert that came over TCP is crypto/tls's own.
		if overTCP.Err.Error() == tls.AlertError(internalAlert).Error() {
			return refusal(internalAlert)
		}
		return fmt.Errorf("the server refuses this node: %w", overTCP.Err)
	}
	return nil
}

func refusal(alert tls.AlertError) error {
	if alert == internalAlert {
		return errors.New("the server has no certificate yet")
	}
	return fmt.Errorf("the server refuses this node: %w", alert)
}
