//go:build linux

package hosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// role makes the test binary play another part than running tests.
const role = "HOSTS_TEST_ROLE"

const echoPort = 7007

func TestMain(m *testing.M) {
	if os.Getenv(role) == "echo" {
		if err := echo(); err != nil {
			fmt.Println("echo:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// echo answers UDP and TCP until it is asked to end.
func echo() error {
	packets, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp4", fmt.Sprintf(":%d", echoPort))
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo(buf[:n], from)
		}
	}()
	go http.Serve(streams, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s\n", r.RemoteAddr)
	}))
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	fmt.Println("ready", os.Getpid())
	<-end
	fmt.Println("stopping")
	return nil
}

// bounded is the context of a test whose waits must end.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startEcho(ctx context.Context, t *testing.T, host *Host) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := host.Command(ctx, self)
	p.Env = append(os.Environ(), role+"=echo")
	p.Start()
	if err := p.WaitOutput(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	return p
}

// checkEcho checks that an echo over UDP comes back, or that none does. An
// answer has all the time of the test; silence is believed after a moment.
func checkEcho(t *testing.T, from *Host, to string, want bool) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tries := 2
	if want {
		tries = 50
	}
	got := false
	for range tries {
		if got {
			break
		}
		conn.SetDeadline(time.Now().Add(75 * time.Millisecond))
		conn.Write([]byte("ping")) // may say that the last one was refused
		_, err := conn.Read(make([]byte, 16))
		got = err == nil
	}
	if got != want {
		t.Errorf("an echo from %s to %s: %v, want %v", to, from.Name, got, want)
	}
}

func TestHostsReachOneAnotherAndNobodyElse(t *testing.T) {
	h := New(t, 3)
	ctx := bounded(t)
	startEcho(ctx, t, h[1])
	for _, from := range []*Host{h[0], h[2], h[1]} {
		checkEcho(t, from, h[1].HostPort(echoPort), true)
	}
	response, err := h[0].HTTPClient().Get("http://" + h[1].HostPort(echoPort))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || !strings.HasPrefix(string(body), h[0].Addr().String()+":") {
		t.Errorf("b saw the client as %q, want %s (%v)", body, h[0].Addr(), err)
	}
	if _, err := h[0].Dial(ctx, "tcp4", "192.0.2.1:80"); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("an address outside: %v, want unreachable", err)
	}
	if _, err := h[0].Dial(ctx, "tcp4", "b.example:80"); err == nil {
		t.Error("a name was dialled")
	}
}

func TestPartitionCutsBothWaysUntilHealed(t *testing.T) {
	h := New(t, 4)
	ctx := bounded(t)
	for _, host := range h {
		startEcho(ctx, t, host)
	}
	there, back := count(ctx, t, h[0], h[1]), count(ctx, t, h[1], h[0])
	h.Partition([]string{"a"}, []string{"b", "c"})
	there.send(5)
	back.send(5)
	for _, link := range []struct {
		from, to int
		open     bool
	}{{0, 1, false}, {2, 0, false}, {1, 2, true}, {0, 3, true}, {3, 2, true}} {
		checkEcho(t, h[link.from], h[link.to].HostPort(echoPort), link.open)
	}
	h.Heal()
	if got := there.arrived() + back.arrived(); got != 0 {
		t.Errorf("%d packets crossed the cut", got)
	}
	checkEcho(t, h[0], h[1].HostPort(echoPort), true)
	checkEcho(t, h[2], h[0].HostPort(echoPort), true)
}

// counter counts what one host sends to another.
type counter struct {
	t    *testing.T
	from net.Conn
	to   net.PacketConn
}

func count(ctx context.Context, t *testing.T, from, to *Host) *counter {
	t.Helper()
	sink, err := to.ListenPacket(ctx, "udp4", to.HostPort(9009))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := sink.(*net.UDPConn).SyscallConn()
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) })
	source, err := from.Dial(ctx, "udp4", to.HostPort(9009))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close(); sink.Close() })
	return &counter{t: t, from: source, to: sink}
}

func (c *counter) send(n int) {
	c.t.Helper()
	for range n {
		if _, err := c.from.Write([]byte("x")); err != nil {
			c.t.Fatal(err)
		}
	}
}

// arrived ends a round: the link must be whole again, so that the mark which
// follows everything that was sent comes through.
func (c *counter) arrived() (n int) {
	c.t.Helper()
	if _, err := c.from.Write([]byte("end")); err != nil {
		c.t.Fatal(err)
	}
	c.to.SetReadDeadline(time.Now().Add(2 * time.Minute))
	buf := make([]byte, 16)
	for {
		size, _, err := c.to.ReadFrom(buf)
		if err != nil {
			c.t.Fatalf("after %d packets: %v", n, err)
		}
		if string(buf[:size]) == "end" {
			return n
		}
		n++
	}
}

func TestCutOneWayLeavesTheOtherWayOpen(t *testing.T) {
	h := New(t, 2)
	ctx := bounded(t)
	there := count(ctx, t, h[0], h[1])
	h.CutOneWay("a", "b")
	back := count(ctx, t, h[1], h[0]) // for which b must first ask where a is, and a answer
	there.send(50)
	back.send(50)
	if got := back.arrived(); got != 50 {
		t.Errorf("the open way let %d of 50 through", got)
	}
	h.Heal()
	if got := there.arrived(); got != 0 {
		t.Errorf("the cut way let %d through", got)
	}
}

func TestLossIsNearItsPercentage(t *testing.T) {
	const sent = 4000
	h := New(t, 2)
	c := count(bounded(t), t, h[0], h[1])
	for _, percent := range []int{0, 30, 100} {
		h.Loss("b", percent)
		c.send(sent)
		h.Loss("b", 0)
		lost := sent - c.arrived()
		// At 30 % the standard deviation is 0.7 %: six of them are room enough.
		if want, room := sent*percent/100, sent*4/100; lost < want-room || lost > want+room || percent%100 == 0 && lost != want {
			t.Errorf("loss of %d %%: %d of %d packets", percent, lost, sent)
		}
	}
}

// A batch that the sender hands to the kernel at once is lost packet by packet.
func TestLossTakesPacketsOutOfABatch(t *testing.T) {
	const size, each, batches = 1000, 40, 20
	h := New(t, 2)
	c := count(bounded(t), t, h[0], h[1])
	raw, _ := c.from.(*net.UDPConn).SyscallConn()
	raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size); err != nil {
			t.Skipf("no UDP segmentation: %v", err)
		}
	})
	h.Loss("a", 50)
	seen := map[int]bool{}
	for range batches {
		if _, err := c.from.Write(make([]byte, size*each)); err != nil {
			t.Fatal(err)
		}
		h.Loss("a", 0)
		seen[c.arrived()] = true
		h.Loss("a", 50)
	}
	if len(seen) < 3 {
		t.Errorf("of each batch of %d arrived only one of these numbers: %v", each, seen)
	}
}

func TestBlockUDPLeavesTCP(t *testing.T) {
	h := New(t, 2)
	ctx := bounded(t)
	startEcho(ctx, t, h[1])
	for _, blocked := range []string{"a", "b"} {
		h.BlockUDP(blocked)
		checkEcho(t, h[0], h[1].HostPort(echoPort), false)
		conn, err := h[0].Dial(ctx, "tcp4", h[1].HostPort(echoPort))
		if err != nil {
			t.Fatalf("TCP with UDP of %s blocked: %v", blocked, err)
		}
		conn.Close()
		h.UnblockUDP(blocked)
		checkEcho(t, h[0], h[1].HostPort(echoPort), true)
	}
}

func TestNarrowSlowsALinkDown(t *testing.T) {
	const size = 512 << 10
	h := New(t, 2)
	ctx := bounded(t)
	listener, err := h[1].Listen(ctx, "tcp4", h[1].HostPort(9010))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	transfer := func() time.Duration {
		begin := time.Now()
		sent := make(chan error, 1)
		go func() {
			conn, err := h[0].Dial(ctx, "tcp4", h[1].HostPort(9010))
			if err == nil {
				_, err = conn.Write(make([]byte, size))
				conn.Close()
			}
			sent <- err
		}()
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		n, err := io.Copy(io.Discard, conn)
		if err := errors.Join(err, <-sent); err != nil || n != size {
			t.Fatalf("%d of %d bytes arrived: %v", n, size, err)
		}
		return time.Since(begin)
	}
	h.Narrow("b", size)
	narrow := transfer()
	h.Heal()
	wide := transfer()
	// The token bucket makes it a second less its burst; scheduling only adds.
	if narrow < 500*time.Millisecond || wide > narrow/2 {
		t.Errorf("%d bytes took %v at %d bytes a second and %v without a limit", size, narrow, size, wide)
	}
}

func TestChangeAddressMovesTheHost(t *testing.T) {
	h := New(t, 2)
	ctx := bounded(t)
	startEcho(ctx, t, h[1])
	old := h[1].HostPort(echoPort)
	if got := h.ChangeAddress("b"); got != h[1].Addr() || old == h[1].HostPort(echoPort) {
		t.Errorf("b moved from %s to %s, now at %s", old, got, h[1].Addr())
	}
	checkEcho(t, h[0], old, false)
	checkEcho(t, h[0], h[1].HostPort(echoPort), true)
}

func TestProcessesArePausedStoppedKilledAndRestarted(t *testing.T) {
	h := New(t, 2)
	ctx := bounded(t)
	p := startEcho(ctx, t, h[1])
	to := h[1].HostPort(echoPort)

	p.Pause()
	checkEcho(t, h[0], to, false)
	p.Continue()
	checkEcho(t, h[0], to, true)

	if err := p.Stop(ctx); err != nil || !strings.Contains(p.Output(), "stopping") || p.Running() {
		t.Errorf("Stop: %v, running %v, output %q", err, p.Running(), p.Output())
	}
	first := p.Output()
	p.Restart()
	if err := p.WaitOutput(ctx, "ready"); err != nil {
		t.Fatal(err)
	}
	checkEcho(t, h[0], to, true)
	if !strings.HasPrefix(p.Output(), first) || len(p.Output()) == len(first) {
		t.Errorf("output after Restart is %q, before it was %q", p.Output(), first)
	}
	p.Pause()
	p.Kill9()
	if p.Running() {
		t.Error("alive after Kill9")
	}
	checkEcho(t, h[0], to, false)
	if err := p.WaitOutput(ctx, "never"); err == nil {
		t.Error("waited for the output of a dead process")
	}
}

func TestStandardOutputIsApartWhereWanted(t *testing.T) {
	h := New(t, 1)
	p := h[0].Command(bounded(t), "/bin/sh", "-c", "echo out; echo err >&2")
	var out strings.Builder
	p.Stdout = &out
	p.Start()
	if err := p.Wait(bounded(t)); err != nil || out.String() != "out\n" || p.Output() != "err\n" {
		t.Errorf("%v, standard output %q, the rest %q", err, out.String(), p.Output())
	}
}

func TestOutputIsBounded(t *testing.T) {
	out := newTail()
	out.Write([]byte("first\n"))
	out.mark()
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 4 * tailSize / len(line) {
		out.Write(line)
	}
	out.Write([]byte("last\n"))
	if got := out.String(); len(got) > 2*tailSize || strings.Contains(got, "first") || !strings.HasSuffix(got, "last\n") {
		t.Errorf("kept %d bytes", len(got))
	}
	if err := out.wait(t.Context(), "last"); err != nil {
		t.Error(err)
	}
}

// TestVictim is run by the tests below, in a process of its own.
func TestVictim(t *testing.T) {
	part := os.Getenv(role)
	if part != "killed" && part != "fails" && part != "panics" {
		t.Skip("a part of the tests of what is left behind")
	}
	h := New(t, 2)
	p := startEcho(t.Context(), t, h[1])
	fmt.Println("victim", p.Pid())
	switch part {
	case "killed":
		select {}
	case "fails":
		t.Error("on purpose")
	case "panics":
		panic("on purpose")
	}
}

func TestNothingOutlivesTheTest(t *testing.T) {
	New(t, 1) // skips where the victim would
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"killed", "fails", "panics"} {
		t.Run(part, func(t *testing.T) {
			victim := exec.CommandContext(bounded(t), self, "-test.run=^TestVictim$")
			victim.Env = append(os.Environ(), role+"="+part)
			stdout, err := victim.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stdout)
			pid := 0
			for pid == 0 && lines.Scan() {
				if rest, ok := strings.CutPrefix(lines.Text(), "victim "); ok {
					pid, _ = strconv.Atoi(rest)
				}
			}
			if part == "killed" {
				victim.Process.Kill()
			}
			shown := false
			for lines.Scan() {
				shown = shown || strings.Contains(lines.Text(), "b/hosts.test| ready")
			}
			if err := victim.Wait(); err == nil || pid == 0 {
				t.Fatalf("the victim ended with %v, its child is %d", err, pid)
			}
			if part == "fails" && !shown {
				t.Error("the output of the process was not shown")
			}
			for ctx := bounded(t); unix.Kill(pid, 0) == nil; {
				select {
				case <-time.After(10 * time.Millisecond): // the kernel reaps it in its own time
				case <-ctx.Done():
					t.Fatalf("process %d outlived its test", pid)
				}
			}
		})
	}
}
