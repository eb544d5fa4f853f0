package listener_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/listener"
)

// startQUIC serves a UDP socket until the test is over.
func startQUIC(t *testing.T, address string, handshakes int, h *handler) *listener.QUIC {
	t.Helper()
	return startQUICWith(t, address, listener.Config{Handler: h, Handshakes: handshakes})
}

func startQUICWith(t *testing.T, address string, cfg listener.Config) *listener.QUIC {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h3"}}
	q, err := listener.ServeQUIC(socket, cfg,
		func(*tls.ClientHelloInfo) (*tls.Config, any) { return config, "terms" })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := q.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return q
}

// h3Get asks once, by a socket that can be looked through.
func h3Get(ctx context.Context, socket net.PacketConn, to netip.AddrPort) (string, error) {
	transport := &quic.Transport{Conn: socket}
	defer transport.Close()
	client := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Dial: func(ctx context.Context, _ string, tls *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
			return transport.Dial(ctx, net.UDPAddrFromAddrPort(to), tls, cfg)
		},
	}
	defer client.Close()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://shop.example/", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func udpSocket(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Skipf("this machine has no such address: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// whereIt answers with the address that the client has reached.
func whereIt(x *exchange.Exchange) { x.Answer(200, []byte(x.Local.Addr().String()+" "+x.TLS.Version)) }

// A socket for every address answers from the one that it was asked at: others
// would be dropped by the client, or on the way to it.
func TestQUICAnswersFromWhereItWasAsked(t *testing.T) {
	q := startQUIC(t, ":0", 0, newHandler(whereIt))
	_, port, _ := net.SplitHostPort(q.Addr().String())
	n, _ := strconv.ParseUint(port, 10, 16)
	for _, at := range []string{"127.0.0.1", "127.0.0.9", "::1"} {
		t.Run(at, func(t *testing.T) {
			to := netip.AddrPortFrom(netip.MustParseAddr(at), uint16(n))
			any := "127.0.0.1:0"
			if to.Addr().Is6() {
				any = "[::1]:0"
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			only := &onlyFrom{UDPConn: udpSocket(t, any), from: to}
			body, err := h3Get(ctx, plain{only}, to)
			if err != nil || body != at+" TLSv1.3" || only.others.Load() != 0 {
				t.Errorf("got %q, %v, %d packets from elsewhere", body, err, only.others.Load())
			}
		})
	}
}

// onlyFrom counts packets that come from elsewhere, and those that ask where the
// client is.
type onlyFrom struct {
	*net.UDPConn
	from   netip.AddrPort
	others atomic.Int32
	retry  atomic.Int32
	deaf   bool
}

func (c *onlyFrom) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.UDPConn.ReadFrom(b)
		if err != nil {
			return n, from, err
		}
		if c.deaf {
			continue
		}
		if u, ok := from.(*net.UDPAddr); !ok || u.AddrPort().Port() != c.from.Port() || u.AddrPort().Addr().Unmap() != c.from.Addr() {
			c.others.Add(1)
		}
		if n > 0 && b[0]&0xf0 == 0xf0 { // Retry, in version 1
			c.retry.Add(1)
		}
		return n, from, err
	}
}

// plain hides what else a socket can do, so that QUIC reads by ReadFrom.
type plain struct{ net.PacketConn }

// Under load a client has to prove where it is before it costs a handshake, and
// above a bound it is refused.
func TestQUICHandshakesUnderLoad(t *testing.T) {
	q := startQUIC(t, "127.0.0.1:0", 8, newHandler(whereIt))
	to := q.Addr().(*net.UDPAddr).AddrPort()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	calm := &onlyFrom{UDPConn: udpSocket(t, "127.0.0.1:0"), from: to}
	if _, err := h3Get(ctx, plain{calm}, to); err != nil || calm.retry.Load() != 0 {
		t.Errorf("without load: %v, %d retries", err, calm.retry.Load())
	}
	gone, leave := context.WithCancel(ctx)
	defer leave()
	for begun := (time.Time{}); ; {
		if time.Since(begun) > 30*time.Second { // those before have been given up by now
			begun = time.Now()
			for range 2 { // a quarter of the bound: they begin, and hear nothing
				deaf := &onlyFrom{UDPConn: udpSocket(t, "127.0.0.1:0"), from: to, deaf: true}
				go h3Get(gone, plain{deaf}, to)
			}
		}
		asked := &onlyFrom{UDPConn: udpSocket(t, "127.0.0.1:0"), from: to}
		body, err := h3Get(ctx, plain{asked}, to)
		if err != nil || body != "127.0.0.1 TLSv1.3" {
			t.Fatalf("under load: %q, %v", body, err)
		}
		if asked.retry.Load() == 1 {
			break
		}
	}
	if open, _ := q.Connections(); open > 4 {
		t.Errorf("%d connections", open)
	}
}

// What is no packet of QUIC is dropped, and does no harm.
func TestQUICNoise(t *testing.T) {
	q := startQUIC(t, "127.0.0.1:0", 0, newHandler(whereIt))
	to := q.Addr().(*net.UDPAddr).AddrPort()
	noise := udpSocket(t, "127.0.0.1:0")
	for _, b := range [][]byte{{}, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 1200), bytes.Repeat([]byte{0xc0, 0, 0, 0, 1, 8}, 200)} {
		if _, err := noise.WriteToUDPAddrPort(b, to); err != nil {
			t.Fatal(err)
		}
	}
	if body, err := h3Get(t.Context(), udpSocket(t, "127.0.0.1:0"), to); err != nil || body != "127.0.0.1 TLSv1.3" {
		t.Errorf("got %q, %v", body, err)
	}
}

// dialQUIC is a connection by HTTP/3 whose handshake is over, and that was not
// refused.
func dialQUIC(t *testing.T, to net.Addr) (*quic.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := quic.DialAddr(ctx, to.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.CloseWithError(0x100, "") })
	if _, err := c.AcceptUniStream(ctx); err != nil { // the server's control stream
		return nil, err
	}
	return c, nil
}

// What bounds the connections of a port bounds those over UDP, too.
func TestQUICConnectionsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name      string
		admission listener.Admission
		budget    *listener.Budget
		room      int // beside the one by TCP
		why       listener.Refusal
	}{
		{"in all of the port", listener.Admission{MaxConnections: 3}, nil, 2, listener.RefusedTotal},
		{"in all of the process", listener.Admission{}, listener.NewBudget(2), 1, listener.RefusedTotal},
		{"of a client", listener.Admission{MaxPerClient: 2}, nil, 1, listener.RefusedClient},
		{"none while memory is short", listener.Admission{Closed: true}, nil, 0, listener.RefusedClosed},
		{"none where a header is to say who the client is", listener.Admission{Proxy: &listener.Proxy{}}, nil, 0, listener.RefusedProxy},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := listener.Config{Handler: newHandler(whereIt), Logger: slog.New(slog.DiscardHandler), Budget: c.budget,
				Admission: func() *listener.Admission { return &c.admission }, Crowd: new(listener.Crowd)}
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := listener.Serve(socket, cfg)
			defer l.Close(t.Context())
			q := startQUICWith(t, "127.0.0.1:0", cfg)
			byTCP, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer byTCP.Close()
			if c.room > 0 {
				eventually(t, func() bool { open, _ := l.Connections(); return open == 1 }, "the connection by TCP is not there")
			}
			var open []*quic.Conn
			for range c.room {
				conn, err := dialQUIC(t, q.Addr())
				if err != nil {
					t.Fatalf("with %d open: %v", len(open), err)
				}
				open = append(open, conn)
			}
			if _, err := dialQUIC(t, q.Addr()); err == nil {
				t.Fatal("one more is taken in")
			}
			if n := q.Refused()[c.why]; n == 0 {
				t.Errorf("it is counted as %v", q.Refused())
			}
			if c.room == 0 {
				return
			}
			open[0].CloseWithError(0x100, "")
			eventually(t, func() bool { _, err := dialQUIC(t, q.Addr()); return err == nil }, "a place that is free again is not given")
			byTCP.Close()
			eventually(t, func() bool { _, err := dialQUIC(t, q.Addr()); return err == nil }, "the place of the connection by TCP is not given")
		})
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, so func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// A QUIC that was killed and comes again, with the same key, tells clients of before
// that their connections are over. Without a key they wait until it was silent for long.
func TestARestartedQUICResetsConnections(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h3"}}
	cfg := listener.Config{Logger: slog.New(slog.DiscardHandler), Handler: newHandler(whereIt), ResetKey: [32]byte{1}}
	serve := func(socket net.PacketConn) *listener.QUIC {
		q, err := listener.ServeQUIC(socket, cfg, func(*tls.ClientHelloInfo) (*tls.Config, any) { return config, "terms" })
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := serve(socket)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, err := quic.DialAddr(ctx, socket.LocalAddr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, &quic.Config{MaxIdleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	// Before it has heard the last of the handshake, a server that begins anew takes what
	// the client sends for the beginning of one.
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://localhost/", nil)
	resp, err := new(http3.Transport).NewClientConn(conn).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	socket.Close() // it cannot say goodbye
	_ = q.Close(ctx)
	if socket, err = net.ListenPacket("udp", socket.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	again := serve(socket)
	defer again.Close(ctx)
	stream, err := conn.OpenStreamSync(ctx)
	for err == nil && ctx.Err() == nil && conn.Context().Err() == nil {
		_, err = stream.Write(make([]byte, 100))
		time.Sleep(10 * time.Millisecond)
	}
	var reset *quic.StatelessResetError
	if !errors.As(context.Cause(conn.Context()), &reset) {
		t.Errorf("the connection has ended with %v", context.Cause(conn.Context()))
	}
}
