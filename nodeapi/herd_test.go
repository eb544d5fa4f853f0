//go:build linux

package nodeapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// herdDir makes the test binary the server of BenchmarkHerd, whose memory is
// then its own. It gets the arguments in NODEAPI_HERD_ARGS, such as
// -test.cpuprofile=FILE.
const herdDir = "NODEAPI_HERD_DIR"

// herdRoutes are declared, and in the scope of each proxy.
const herdRoutes = 30_000

func herdSize() int {
	if n, err := strconv.Atoi(os.Getenv("NODEAPI_HERD")); err == nil {
		return n
	}
	return 1000
}

// TestHerdServer is no test: it is the other process of BenchmarkHerd. It obeys
// lines on its standard input.
func TestHerdServer(t *testing.T) {
	dir := os.Getenv(herdDir)
	if dir == "" {
		t.Skip("this is BenchmarkHerd's server")
	}
	c := newCluster(t)
	for i := range herdSize() {
		node, err := identity.Open(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		csr, err := node.Request()
		if err != nil {
			t.Fatal(err)
		}
		issued, err := c.registrar.Enrol(t.Context(), identity.RoleEdge, fmt.Sprintf("e%d", i), csr, identity.Names{})
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Install(issued); err != nil {
			t.Fatal(err)
		}
	}
	declared := []*weirv1.Resource{gateway("public", nil)}
	for i := range herdRoutes {
		declared = append(declared, route(fmt.Sprintf("r%d", i), "public", "books"))
	}
	c.source.put(declared...)
	c.start()
	fmt.Println("herd", c.address)
	changes := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "change":
			changes++
			c.source.put(route(fmt.Sprintf("r%d", changes*7919%herdRoutes), "public", "books"))
		case "memory":
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Println("herd", rss(t), m.HeapAlloc, m.StackInuse, runtime.NumGoroutine(), cpu(t).Microseconds())
		}
	}
}

// rss is what the process holds, in bytes.
func rss(t *testing.T) int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// cpu is what the process has used so far.
func cpu(t testing.TB) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

type herd struct {
	b       *testing.B
	process *exec.Cmd
	answers *bufio.Scanner
	tell    func(string)
	got     chan time.Time
}

func startHerdServer(b *testing.B) (*herd, string) {
	dir := b.TempDir()
	args := append([]string{"-test.run=^TestHerdServer$"}, strings.Fields(os.Getenv("NODEAPI_HERD_ARGS"))...)
	h := &herd{b: b, process: exec.Command(os.Args[0], args...), got: make(chan time.Time, 1<<16)}
	h.process.Env = append(os.Environ(), herdDir+"="+dir)
	in, err := h.process.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := h.process.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	h.answers = bufio.NewScanner(out)
	h.tell = func(what string) { fmt.Fprintln(in, what) }
	if err := h.process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = h.process.Wait()
	})
	return h, dir
}

// answer is the next line that is meant for us.
func (h *herd) answer() []string {
	for h.answers.Scan() {
		if words := strings.Fields(h.answers.Text()); len(words) > 1 && words[0] == "herd" {
			return words[1:]
		}
	}
	h.b.Fatal("the server has ended")
	return nil
}

func (h *herd) memory() []int {
	h.tell("memory")
	var numbers []int
	for _, word := range h.answer() {
		n, _ := strconv.Atoi(word)
		numbers = append(numbers, n)
	}
	return numbers
}

// enter opens the stream of one proxy that holds some state.
func enter(ctx context.Context, d *nodeport.Dialer, address string, node *identity.Identity, at position) (*link, *clientStream, error) {
	l, err := dialLink(ctx, d, address, node.ClientTLS)
	if err != nil {
		return nil, nil, err
	}
	stream, err := l.api.StreamConfig(ctx)
	if err == nil {
		err = stream.Send(&weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Subscribe{
			Subscribe: &weirv1.Subscribe{Revision: at.revision, Digest: at.digest[:]},
		}})
	}
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, &stream, nil
}

// scout is a proxy that holds nothing: it is sent everything, and says where that
// leads.
func scout(ctx context.Context, d *nodeport.Dialer, address string, node *identity.Identity) (at position, err error) {
	l, stream, err := enter(ctx, d, address, node, at)
	if err != nil {
		return at, err
	}
	defer l.Close()
	defer stream.Close()
	for c := new(received); ; {
		m, err := stream.Receive()
		if err != nil {
			return at, err
		}
		if whole, err := c.add(m); whole || err != nil {
			if len(c.puts) != herdRoutes+1 {
				err = errors.Join(err, fmt.Errorf("%d resources are sent", len(c.puts)))
			}
			return position{c.revision, c.digest}, err
		}
	}
}

// follow is one proxy that holds what the scout was sent: it notes when each
// change came, and says so.
func (h *herd) follow(ctx context.Context, d *nodeport.Dialer, address string, node *identity.Identity, at position, connected func()) error {
	l, stream, err := enter(ctx, d, address, node, at)
	if err != nil {
		return err
	}
	defer l.Close()
	defer stream.Close()
	for first := true; ; first = false {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		if first {
			connected()
		} else {
			h.got <- time.Now()
		}
		if err := stream.Send(&weirv1.StreamConfigRequest{Message: &weirv1.StreamConfigRequest_Ack{Ack: &weirv1.Ack{Revision: m.GetRevision()}}}); err != nil {
			return err
		}
	}
}

// BenchmarkHerd connects a thousand proxies (NODEAPI_HERD: another number) that
// hold 30,000 routes to a server in a process of its own, and changes one of them,
// again and again: how long until a proxy has it, and what a proxy costs the server.
//
// The proxies are one process on the same machine, and it is their work too that
// the last of them waits for: what that is stands beside the server's.
func BenchmarkHerd(b *testing.B) {
	h, dir := startHerdServer(b)
	address := h.answer()[0]
	d := nodeport.NewDialer(nodeport.DialerConfig{Logger: slog.New(slog.DiscardHandler), HeadStart: time.Minute})
	defer d.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var proxies, connecting sync.WaitGroup
	defer proxies.Wait()
	defer cancel()
	open := func(i int) *identity.Identity {
		node, err := identity.Open(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			b.Fatal(err)
		}
		return node
	}
	at, err := scout(ctx, d, address, open(0))
	if err != nil {
		b.Fatal(err)
	}
	before := h.memory()
	begun := time.Now()
	for i := range herdSize() {
		node := open(i)
		connecting.Add(1)
		proxies.Go(func() {
			once := sync.OnceFunc(connecting.Done)
			for ctx.Err() == nil {
				if err := h.follow(ctx, d, address, node, at, once); ctx.Err() == nil {
					b.Logf("proxy %d: %v", i, err)
				}
			}
		})
	}
	connecting.Wait()
	took := time.Since(begun)
	after := h.memory()
	var all []time.Duration
	used := cpu(b)
	for b.Loop() {
		sent := time.Now()
		h.tell("change")
		for range herdSize() {
			all = append(all, (<-h.got).Sub(sent))
		}
	}
	used = cpu(b) - used
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "ms-p99")
	again := h.memory()
	n := float64(herdSize())
	b.ReportMetric(took.Seconds(), "s/connect-all")
	b.ReportMetric(float64(after[0]-before[0])/1024/n, "KB-RSS/proxy")
	b.ReportMetric(float64(after[1]-before[1])/1024/n, "KB-heap/proxy")
	b.ReportMetric(float64(after[2]-before[2])/1024/n, "KB-stack/proxy")
	b.ReportMetric(float64(after[3]-before[3])/n, "goroutines/proxy")
	b.ReportMetric(float64(again[0]-before[0])/1024/n, "KB-RSS-later/proxy")
	b.ReportMetric(float64(after[4]-before[4])/1000/n, "ms-CPU/connect")
	b.ReportMetric(float64(again[4]-after[4])/n/float64(b.N), "µs-CPU/message")
	b.ReportMetric(float64(used.Microseconds())/n/float64(b.N), "µs-CPU-of-proxy/message")
}
