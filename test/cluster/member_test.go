//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/test/hosts"
	"github.com/weirmesh/weir/test/powercut"
)

const (
	nodePort  = 7400
	adminPort = 7401
)

// A member is a server of the cluster, with a life of several processes.
type member struct {
	c     *cluster
	name  string
	host  *hosts.Host
	data  string
	disk  *powercut.Disk // nil: the machine's own
	space int            // bytes of a file system of its own; 0: the machine's
	// spaceAt is where in data that is; empty: all of it.
	spaceAt string
	// program is another build than the one under test; empty: that one.
	program string
	client  weirv1connect.AdminServiceClient

	mu   sync.Mutex
	runs []*hosts.Process
}

// address is where other members find this one.
func (m *member) address() string {
	if r := m.c.relays[m.name]; r != nil {
		return r.address
	}
	return m.host.HostPort(nodePort)
}

func (m *member) adminAddress() string { return m.host.HostPort(adminPort) }

// start starts the server, where its host is now.
func (m *member) start(begin ...string) {
	m.c.t.Helper()
	args := []string{"server", "--name", m.name, "--data", m.data, "--node", m.host.HostPort(nodePort), "--admin", m.adminAddress()}
	if m.c.options.relayed {
		args = append(args, "--advertise", m.address())
	}
	args = slices.Concat(args, m.c.options.flags, begin)
	p := m.process(args)
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GOTRACEBACK=all"}
	m.mu.Lock()
	m.runs = append(m.runs, p)
	m.mu.Unlock()
	p.Start()
}

// process is the server's, in a mount namespace of its own where its space is
// bounded: that file system goes with the process, whatever ends it.
func (m *member) process(args []string) *hosts.Process {
	path := m.program
	if path == "" {
		path = weir(m.c.t)
	}
	if m.space == 0 {
		return m.host.Command(m.c.t.Context(), path, args...)
	}
	script := fmt.Sprintf(`mkdir -p "$1" && mount -t tmpfs -o size=%d tmpfs "$1" && shift && exec "$@"`, m.space)
	return m.host.Command(m.c.t.Context(), "unshare",
		append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", filepath.Join(m.data, m.spaceAt), path}, args...)...)
}

// join starts the server for the first time, to join the cluster of another.
func (m *member) join(other *member) {
	m.c.t.Helper()
	m.start("--join", other.address(), "--token", m.c.joinToken("server"))
}

// ready waits until the server serves.
func (m *member) ready() {
	m.c.t.Helper()
	if err := m.run().WaitOutput(bounded(m.c.t), "weir: ready"); err != nil {
		m.c.t.Fatal(err)
	}
}

// run is the process of the last start.
func (m *member) run() *hosts.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.runs) == 0 {
		m.c.t.Fatalf("%s was never started", m.name)
	}
	return m.runs[len(m.runs)-1]
}

func (m *member) isRunning() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.runs) > 0 && m.runs[len(m.runs)-1].Running()
}

func (m *member) kill()   { m.run().Kill9() }
func (m *member) pause()  { m.run().Pause() }
func (m *member) resume() { m.run().Continue() }

// restart starts the server again after its end, or kills it first.
func (m *member) restart(begin ...string) {
	m.c.t.Helper()
	m.kill()
	m.start(begin...)
	m.ready()
}

// stop stops the server as an operator would.
func (m *member) stop() {
	m.c.t.Helper()
	if err := m.run().Stop(bounded(m.c.t)); err != nil {
		m.c.t.Errorf("stop %s: %v", m.name, err)
	}
}

// cutPower takes the power from the member, and its disk.
func (m *member) cutPower() {
	m.c.t.Helper()
	m.pause() // it sees nothing of its own end
	report := m.disk.Cut()
	m.kill()
	m.c.t.Logf("power of %s cut: %+v", m.name, report)
}

// root is where this process finds what the member's finds at "/".
func (m *member) root() string {
	if m.space == 0 {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", m.run().Pid())
}

// inside is a path in the data directory, for this process.
func (m *member) inside(name string) string { return filepath.Join(m.root(), m.data, name) }

// others are the other members that run, or all where none does.
func (m *member) others() []*member {
	but := func(list []*member) []*member {
		return slices.DeleteFunc(slices.Clone(list), func(o *member) bool { return o == m })
	}
	if running := but(m.c.running()); len(running) > 0 {
		return running
	}
	return but(m.c.all())
}

// status is what the member knows of the cluster.
func (m *member) status(ctx context.Context) (*weirv1.GetStatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return m.client.GetStatus(ctx, &weirv1.GetStatusRequest{})
}

// output is all that the member's processes have printed, as far as it is kept.
func (m *member) output() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, p := range m.runs {
		b.WriteString(p.Output())
	}
	return b.String()
}
