package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fates sends so many packets, a millisecond apart, and gives for each when its
// copies are due, since it was sent.
func fates(seed uint64, client, direction, n int, c Conditions) [][]time.Duration {
	s := newShaper(seed, client, direction)
	start := time.Unix(0, 0)
	all := make([][]time.Duration, n)
	for i := range all {
		sent := start.Add(time.Duration(i) * time.Millisecond)
		for _, due := range s.fate(sent, c) {
			all[i] = append(all[i], due.Sub(sent))
		}
	}
	return all
}

func TestASeedDecidesTheFateOfEveryPacket(t *testing.T) {
	c := Conditions{Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond, Drop: 0.2, Duplicate: 0.2, Reorder: 0.2}
	one := fates(1, 0, there, 500, c)
	if diff := cmp.Diff(one, fates(1, 0, there, 500, c)); diff != "" {
		t.Errorf("the same seed, another fate:\n%s", diff)
	}
	for name, other := range map[string][][]time.Duration{
		"seed": fates(2, 0, there, 500, c), "client": fates(1, 1, there, 500, c), "direction": fates(1, 0, back, 500, c),
	} {
		if cmp.Equal(one, other) {
			t.Errorf("another %s, the same fate", name)
		}
	}
	harsher := c
	harsher.Drop = 0.5
	for i, fate := range fates(1, 0, there, 500, harsher) {
		if len(fate) > 0 && len(one[i]) == 0 {
			t.Errorf("packet %d is lost at 20 %% and not at 50 %%: the draws have shifted", i)
		}
	}
}

func TestConditionsHold(t *testing.T) {
	const n = 4000
	const ms = time.Millisecond
	tests := []struct {
		name                 string
		c                    Conditions
		lost, twice, overtak float64
		least, most          time.Duration
	}{
		{"a perfect line", Conditions{}, 0, 0, 0, 0, 0},
		{"delay alone keeps the order", Conditions{Delay: 20 * ms}, 0, 0, 0, 20 * ms, 20 * ms},
		{"jitter keeps the order", Conditions{Delay: 20 * ms, Jitter: 30 * ms}, 0, 0, 0, 20 * ms, 50 * ms},
		{"loss", Conditions{Drop: 0.3}, 0.3, 0, 0, 0, 0},
		{"all is lost", Conditions{Drop: 1}, 1, 0, 0, 0, 0},
		{"duplicates", Conditions{Duplicate: 0.25}, 0, 0.25, 0, 0, 0},
		{"reordering", Conditions{Delay: 20 * ms, Reorder: 0.1}, 0, 0, 0.1, 20 * ms, 41 * ms},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var lost, twice, overtaken int
			var first, last time.Duration = time.Hour, 0
			var due []time.Duration // since the start, of what keeps its place or not
			for i, fate := range fates(3, 0, there, n, test.c) {
				switch len(fate) {
				case 0:
					lost++
					continue
				case 2:
					twice++
				}
				first, last = min(first, fate[0]), max(last, fate[0])
				due = append(due, time.Duration(i)*ms+fate[0])
			}
			for i, d := range due {
				if slices.ContainsFunc(due[i+1:min(len(due), i+100)], func(later time.Duration) bool { return later < d }) {
					overtaken++
				}
			}
			near := func(what string, got int, want float64) {
				if room := 0.03 * n; float64(got) < want*n-room || float64(got) > want*n+room || (want == 0 || want == 1) && float64(got) != want*n {
					t.Errorf("%s: %d of %d, want a share of %g", what, got, n, want)
				}
			}
			near("lost", lost, test.lost)
			near("twice", twice, test.twice)
			near("overtaken", overtaken, test.overtak)
			if lost < n && (first < test.least || last > test.most) {
				t.Errorf("delays from %v to %v, want %v to %v", first, last, test.least, test.most)
			}
		})
	}
}

func TestALineDeliversInTimeAndHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var stats counters
		conditions := Conditions{Delay: 50 * time.Millisecond}
		start := time.Now()
		var arrived []string
		l := newLine(newShaper(1, 0, there), func() Conditions { return conditions }, &stats, func(p []byte) {
			arrived = append(arrived, fmt.Sprintf("%s@%v", p, time.Since(start)))
		})
		go l.run(ctx)
		l.send(ctx, []byte("a"))
		time.Sleep(10 * time.Millisecond)
		l.send(ctx, []byte("b"))
		l.send(ctx, []byte("c"))
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"a@50ms", "b@60ms", "c@60ms"}, arrived); diff != "" {
			t.Errorf("arrivals (-want +got):\n%s", diff)
		}
		for range maxWaiting + 10 {
			l.send(ctx, []byte("x"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		want := Stats{Delivered: 3 + maxWaiting, Overflowed: 10}
		if got := stats.read(); got != want || len(arrived) != 3+maxWaiting {
			t.Errorf("%+v with %d arrivals, want %+v", got, len(arrived), want)
		}
		l.send(ctx, []byte("late"))
		cancel() // it ends with a packet waiting
	})
}

func socket(t *testing.T) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn
}

func dial(addr net.Addr) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	}
}

// expect checks what comes to a socket next, and says from where.
func expect(t *testing.T, conn *net.UDPConn, want string) net.Addr {
	t.Helper()
	buf := make([]byte, 100)
	n, from, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
	}
	return from
}

func send(t *testing.T, conn *net.UDPConn, to net.Addr, data string) {
	t.Helper()
	if _, err := conn.WriteTo([]byte(data), to); err != nil {
		t.Fatal(err)
	}
}

func TestUDPIsRelayedBothWays(t *testing.T) {
	far, one, two := socket(t), socket(t), socket(t)
	r := UDP(t, 1, socket(t), dial(far.LocalAddr()))
	send(t, one, r.Addr(), "from one")
	asOne := expect(t, far, "from one")
	send(t, two, r.Addr(), "from two")
	asTwo := expect(t, far, "from two")
	if asOne.String() == asTwo.String() {
		t.Error("two clients share a socket at the far end")
	}
	send(t, far, asTwo, "to two")
	send(t, far, asOne, "to one")
	expect(t, one, "to one")
	expect(t, two, "to two")

	r.Set(Conditions{Drop: 1})
	send(t, one, r.Addr(), "lost")
	for r.Stats().Dropped == 0 {
		time.Sleep(time.Millisecond)
	}
	r.Set(Conditions{Duplicate: 1, Delay: 30 * time.Millisecond})
	begin := time.Now()
	send(t, one, r.Addr(), "twice")
	expect(t, far, "twice")
	expect(t, far, "twice")
	if took := time.Since(begin); took < 30*time.Millisecond {
		t.Errorf("a delay of 30ms took %v", took)
	}
}

func TestAUDPRelayOutlivesItsFarEnd(t *testing.T) {
	far, client := socket(t), socket(t)
	r := UDP(t, 1, socket(t), dial(far.LocalAddr()))
	send(t, client, r.Addr(), "a")
	expect(t, far, "a")
	far.Close()
	send(t, client, r.Addr(), "refused")
	for r.Stats().Delivered < 2 {
		time.Sleep(time.Millisecond)
	}
	again, err := net.ListenUDP("udp4", far.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.SetDeadline(time.Now().Add(2 * time.Minute))
	send(t, client, r.Addr(), "b") // may be what learns of the refusal
	send(t, client, r.Addr(), "c")
	buf := make([]byte, 10)
	for {
		n, from, err := again.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "c" {
			send(t, again, from, "answer")
			expect(t, client, "answer")
			return
		}
	}
}

func TestAUDPRelayForgetsTheClientSilentForLongest(t *testing.T) {
	far, one, two, three := socket(t), socket(t), socket(t), socket(t)
	r := newUDP(t, 1, socket(t), dial(far.LocalAddr()))
	r.maxClients = 2
	r.start()
	as := func(conn *net.UDPConn) string {
		send(t, conn, r.Addr(), "x")
		return expect(t, far, "x").String()
	}
	firstOne, firstTwo := as(one), as(two)
	if as(one) != firstOne {
		t.Error("a client that was known became another")
	}
	as(three)
	if as(one) != firstOne {
		t.Error("the client that spoke last was forgotten")
	}
	if as(two) == firstTwo {
		t.Error("nobody was forgotten")
	}
}

func TestConditionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, c := range []Conditions{{Drop: -0.1}, {Drop: 1.1}, {Duplicate: 2}, {Reorder: 20}, {Delay: -1}, {Jitter: -1}} {
		if c.validate() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func tcpPair(t *testing.T) (*TCPRelay, net.Listener) {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	far := listen()
	return TCP(t, 1, listen(), dial(far.Addr())), far
}

// connect makes a connection through the relay and gives both its ends.
func connect(t *testing.T, r *TCPRelay, far net.Listener) (near, there *net.TCPConn) {
	t.Helper()
	conn, err := net.Dial("tcp4", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, accepted} {
		c.SetDeadline(time.Now().Add(2 * time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return conn.(*net.TCPConn), accepted.(*net.TCPConn)
}

func TestTCPKeepsBytesAndEnds(t *testing.T) {
	r, far := tcpPair(t)
	r.SetDelay(5*time.Millisecond, 5*time.Millisecond)
	near, there := connect(t, r, far)
	sent := make([]byte, 3*maxChunks*chunkSize) // more than the line holds
	for i := range sent {
		sent[i] = byte(i / 7)
	}
	go func() { near.Write(sent); near.CloseWrite() }()
	got, err := io.ReadAll(there)
	if err != nil || string(got) != string(sent) {
		t.Fatalf("%d of %d bytes came: %v", len(got), len(sent), err)
	}
	// The other half is still open.
	there.Write([]byte("thanks"))
	there.Close()
	if answer, err := io.ReadAll(near); err != nil || string(answer) != "thanks" {
		t.Errorf("the answer is %q, %v", answer, err)
	}
}

func TestTCPIsDelayed(t *testing.T) {
	const delay = 40 * time.Millisecond
	r, far := tcpPair(t)
	near, there := connect(t, r, far)
	r.SetDelay(delay, 0)
	begin := time.Now()
	near.Write([]byte("x"))
	if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < delay {
		t.Errorf("a delay of %v took %v", delay, took)
	}
}

// readNew connects to the relay and reads. A reset may come as early as that.
func readNew(r *TCPRelay) error {
	conn, err := net.Dial("tcp4", r.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestTCPIsCutAndRestored(t *testing.T) {
	r, far := tcpPair(t)
	near, there := connect(t, r, far)
	r.Cut()
	for name, conn := range map[string]*net.TCPConn{"client": near, "far": there} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("at the %s end a cut reads as %v", name, err)
		}
	}
	if err := readNew(r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection made while cut reads %v, want a reset", err)
	}
	r.Restore()
	near, there = connect(t, r, far)
	near.Write([]byte("x"))
	if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
		t.Errorf("after Restore: %v", err)
	}
}

func TestTCPIsStalledAndMovesOn(t *testing.T) {
	r, far := tcpPair(t)
	near, there := connect(t, r, far)
	r.Stall()
	near.Write([]byte("held"))
	there.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := there.Read(make([]byte, 4)); err == nil {
		t.Errorf("%d bytes came through a stalled line", n)
	}
	r.Restore()
	there.SetReadDeadline(time.Now().Add(2 * time.Minute))
	buf := make([]byte, 4)
	if _, err := io.ReadFull(there, buf); err != nil || string(buf) != "held" {
		t.Errorf("after Restore came %q, %v", buf, err)
	}
}

func TestAFarEndThatRefusesResetsTheClient(t *testing.T) {
	r, far := tcpPair(t)
	far.Close()
	if err := readNew(r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v, want a reset", err)
	}
}
