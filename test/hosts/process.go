//go:build linux

package hosts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a command on a host, with a life of several starts: Restart
// runs the same command again. What it prints is kept (the last of it) and
// shown when the test fails.
type Process struct {
	Env []string // as in exec.Cmd: nil is the test's own
	// Dir is where the command runs. Keep it off file systems that the test
	// process itself serves (package powercut): a fork would wait for the test
	// and the test for the fork.
	Dir string
	// Stdout gets the standard output, as in exec.Cmd, which is then not kept
	// with the rest: for what a program is to read.
	Stdout io.Writer

	host   *Host
	ctx    context.Context
	path   string
	args   []string
	output *tail

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil before the first start
	exited chan struct{} // closed when cmd has been waited for
	err    error         // what Wait said; read after exited
}

// Command prepares a command on this host. When ctx ends, it is killed.
func (h *Host) Command(ctx context.Context, path string, args ...string) *Process {
	p := &Process{host: h, ctx: ctx, path: path, args: args, output: newTail()}
	h.mu.Lock()
	h.processes = append(h.processes, p)
	h.mu.Unlock()
	return p
}

// Start starts the process. One that cannot be started fails the test.
func (p *Process) Start() {
	p.host.net.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !isClosed(p.exited) {
		p.host.net.t.Errorf("hosts: start %s: it is running", p)
		return
	}
	cmd := exec.CommandContext(p.ctx, p.path, p.args...)
	cmd.Env, cmd.Dir = p.Env, p.Dir
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if p.Stdout != nil {
		cmd.Stdout = p.Stdout
	}
	// A group of its own, so that its children are killed and paused with it;
	// and its death with the thread that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second // children that keep its output open

	var err error
	p.output.mark()
	p.host.space.run(func() { err = cmd.Start() })
	if err != nil {
		p.host.net.t.Errorf("hosts: start %s: %v", p, err)
		return
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() { // ends with the process, which killAll waits for
		p.err = cmd.Wait()
		p.output.end()
		close(exited)
	}()
}

// Kill9 kills the process with all its children, as a power cut or the
// kernel's memory killer would, and waits until it is gone.
func (p *Process) Kill9() {
	p.signal(unix.SIGKILL)
	if exited := p.done(); exited != nil {
		<-exited
	}
}

// Stop asks the process to end (SIGTERM) and waits until it has. When ctx ends
// first the process is killed. The error is nil if it ended with status 0.
func (p *Process) Stop(ctx context.Context) error {
	if p.done() == nil {
		return nil
	}
	p.signal(unix.SIGTERM)
	return p.Wait(ctx)
}

// Wait waits until the process has ended, and kills it when ctx ends first.
func (p *Process) Wait(ctx context.Context) error {
	exited := p.done()
	if exited == nil {
		return errors.New("wait for process: it was never started")
	}
	select {
	case <-exited:
		return p.err
	case <-ctx.Done():
		p.Kill9()
		return fmt.Errorf("wait for %s: %w", p, ctx.Err())
	}
}

// Pause stops the process where it stands (SIGSTOP) and returns when it has
// stopped. To others it looks like a host that hangs.
func (p *Process) Pause() {
	p.signal(unix.SIGSTOP)
	pid := p.Pid()
	if pid == 0 {
		return
	}
	// Nothing is consumed: the end of the process is cmd.Wait's to collect.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Continue lets a paused process run on.
func (p *Process) Continue() { p.signal(unix.SIGCONT) }

// Restart kills the process if it runs, and starts it again.
func (p *Process) Restart() {
	p.host.net.t.Helper()
	p.Kill9()
	p.Start()
}

// Running says whether the process has been started and has not ended.
func (p *Process) Running() bool { return p.Pid() != 0 }

// Pid is the process's number, 0 when it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || isClosed(p.exited) {
		return 0
	}
	return p.cmd.Process.Pid
}

// Output is the last of what the process has printed, over all its starts.
func (p *Process) Output() string { return p.output.String() }

// WaitOutput waits until the process has printed the text since its last start.
// It fails when the process ends or ctx does.
func (p *Process) WaitOutput(ctx context.Context, text string) error {
	if err := p.output.wait(ctx, text); err != nil {
		return fmt.Errorf("wait for %q from %s: %w", text, p, err)
	}
	return nil
}

func (p *Process) String() string { return p.host.Name + "/" + filepath.Base(p.path) }

func (p *Process) done() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exited
}

// signal reaches the whole group. A group that is gone is no error: processes
// end by themselves too.
func (p *Process) signal(signal unix.Signal) {
	if pid := p.Pid(); pid != 0 {
		unix.Kill(-pid, signal)
	}
}

// killAll ends what runs on the host, and shows what it said if the test failed.
func (h *Host) killAll() {
	h.mu.Lock()
	processes := h.processes
	h.mu.Unlock()
	for _, p := range processes {
		p.Kill9()
		if h.net.t.Failed() {
			p.output.show(h.net.t.Output(), p.String())
		}
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
