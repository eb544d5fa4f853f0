package nodeport

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weirmesh/weir/identity"
)

// hasty is how long UDP is given to fail, so that a test need not wait.
const hasty = time.Second

// A fallback, and the return: one line of the log each, and who is on TCP hears
// that it may come back.
func TestBlockedUDPAndItsReturn(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	detour := newDetour(t, s.address)
	detour.blockUDP()
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{HeadStart: 20 * time.Millisecond, RetryUDP: 20 * time.Millisecond})
	d.attemptTimeout = hasty

	first := c.link(d, detour.address, edge)
	requireCall(t, first, "HTTP/2.0")
	log.await(t, "does not answer, using TCP")
	second := c.link(d, detour.address, edge)
	requireCall(t, second, "HTTP/2.0")

	detour.unblockUDP()
	for _, l := range []*Link{first, second} {
		select {
		case <-l.Returned():
		case <-time.After(patience):
			t.Fatal("UDP is never found to work")
		}
		requireCall(t, l, "HTTP/2.0") // nobody takes it away
	}
	d.cfg.HeadStart = patience
	requireCall(t, c.link(d, detour.address, edge), "HTTP/3.0")
	if warned, back := log.count("does not answer"), log.count("answers again"); warned != 1 || back != 1 {
		t.Errorf("%d warnings and %d returns in the log", warned, back)
	}
}

// While UDP is known to be blocked TCP comes first: nobody waits for the head
// start twice.
func TestBlockedUDPIsRemembered(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	detour := newDetour(t, s.address)
	detour.blockUDP()
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{HeadStart: 10 * time.Millisecond})
	d.attemptTimeout = hasty
	first := c.link(d, detour.address, edge)
	log.await(t, "does not answer")
	d.cfg.HeadStart = patience
	second := c.link(d, detour.address, edge)
	requireCall(t, second, "HTTP/2.0")
	// Not even the last one that leaves makes it forgotten.
	first.Close()
	second.Close()
	requireCall(t, c.link(d, detour.address, edge), "HTTP/2.0")
}

// Where UDP is held to be blocked and now TCP fails, UDP is asked all the same.
func TestBlockedUDPIsAllThatIsLeft(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	detour := newDetour(t, s.address)
	detour.tcp.Cut()
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{})
	p := d.path(detour.address)
	p.mu.Lock()
	p.blocked, p.again = true, time.Now().Add(time.Hour)
	p.mu.Unlock()
	requireCall(t, c.link(d, detour.address, c.node(identity.RoleEdge, "e1")), "HTTP/3.0")
	log.await(t, "answers again")
}

// TCP that is quicker is used, but proves nothing: the QUIC that comes after it
// shows that UDP works.
func TestSlowUDPIsNotBlocked(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	log := newDiary(t)
	hold := make(chan struct{})
	d := newDialer(t, log, DialerConfig{HeadStart: time.Millisecond, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "udp" {
			select {
			case <-hold:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	l := c.link(d, s.address, c.node(identity.RoleEdge, "e1"))
	requireCall(t, l, "HTTP/2.0")
	close(hold)
	select {
	case <-l.Returned():
	case <-time.After(patience):
		t.Fatal("UDP is never found to work")
	}
	if log.count("does not answer") != 0 || d.path(s.address).isBlocked() {
		t.Fatal("it is held to be blocked")
	}
}

// A server that answers something, if not enough yet, is busy: TCP would only
// add to that.
func TestBusyUDPHoldsBackTCP(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	s.port.handshakes.Add(trustedHandshakes) // so that the first answer is a Retry
	defer s.port.handshakes.Add(-trustedHandshakes)
	d := newDialer(t, s.log, DialerConfig{})
	requireCall(t, c.link(d, s.address, c.node(identity.RoleEdge, "e1")), "HTTP/3.0")
	r := &race{dialer: d, path: d.path(s.address), attempt: &attempt{}}
	heard := new(socket)
	heard.heard.Store(true)
	r.attempt.socket.Store(heard)
	if r.headStartOver(t.Context()); r.tcp != nil {
		t.Fatal("TCP was started beside a QUIC that lives")
	}
}

func TestPeerThatIsDown(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	s.stop()
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{})
	for range 3 {
		l, err := d.Link(bounded(t), s.address, c.node(identity.RoleEdge, "e1").ClientTLS)
		if err == nil {
			l.Close()
			t.Fatal("nobody answered, and yet")
		}
		if !isRefused(err) || WrongPeer(err) {
			t.Fatalf("got %v", err)
		}
	}
	if log.count("UDP to") != 0 {
		t.Error("a peer that is down was taken for one without UDP")
	}
}

// Silence on both is as long as the caller's patience, and no longer.
func TestPeerThatIsSilent(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	detour := newDetour(t, s.address)
	detour.blockUDP()
	detour.tcp.Stall()
	log := newDiary(t)
	d := newDialer(t, log, DialerConfig{HeadStart: time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.Link(ctx, detour.address, c.node(identity.RoleEdge, "e1").ClientTLS); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	detour.tcp.Restore()
	if log.count("UDP to") != 0 {
		t.Error("a peer that is silent was taken for one without UDP")
	}
}

// A server that was killed says nothing. Its machine does, at the next packet.
func TestKilledServerIsNoticed(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	l := c.link(newDialer(t, s.log, DialerConfig{}), s.address, c.node(identity.RoleEdge, "e1"))
	body, pen := io.Pipe()
	defer pen.Close()
	response, err := l.RoundTrip(newRequest(t, body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	s.failed = true
	s.port.udp.Close() // there is nothing to say good-bye with
	if _, err := io.ReadAll(response.Body); err == nil || GoingAway(err) {
		t.Fatalf("the call ended with %v", err)
	}
}

func TestDialerThatIsClosed(t *testing.T) {
	c := newCluster(t)
	s := c.serve("s1")
	edge := c.node(identity.RoleEdge, "e1")
	d := NewDialer(DialerConfig{Logger: s.log.logger()})
	l := c.link(d, s.address, edge)
	d.Close()
	if _, err := call(t, l, "x"); err == nil {
		t.Error("a link outlived its dialer")
	}
	if _, err := d.Link(bounded(t), s.address, edge.ClientTLS); !errors.Is(err, errDialerClosed) {
		t.Errorf("got %v", err)
	}
}

// A stream over TCP is closed some time after UDP works again, so that the next
// one is over QUIC.
func TestStreamsReturnToQUIC(t *testing.T) {
	c := newCluster(t)
	a, b := c.serve("a"), c.serve("b")
	a.dialer.cfg.HeadStart, a.dialer.cfg.RetryUDP = 10*time.Millisecond, 10*time.Millisecond
	a.dialer.attemptTimeout, a.members.returnAfter = hasty, time.Millisecond
	detour := newDetour(t, b.address)
	detour.blockUDP()
	near, _ := pair(t, a, b, detour.address)
	a.log.await(t, "does not answer")
	a.dialer.cfg.HeadStart = patience
	detour.unblockUDP()
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Fatal("the stream had something to say")
	}
	pair(t, a, b, detour.address)
	if a.dialer.path(detour.address).hasUsers() {
		t.Fatal("the next stream is over TCP as well")
	}
}

// So many addresses are remembered, and no more.
func TestPathsAreForgotten(t *testing.T) {
	d := newDialer(t, newDiary(t), DialerConfig{})
	for i := range 3 * maxPaths {
		d.path(net.JoinHostPort("192.0.2.1", string(rune('0'+i))))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.paths) > maxPaths {
		t.Fatalf("%d are", len(d.paths))
	}
}
