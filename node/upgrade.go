package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/weirmesh/weir/internal/handover"
)

// upgradeTime is how long the next process may take to serve.
const upgradeTime = time.Minute

// errHandedOver ends a process whose work another one does from now on.
var errHandedOver = errors.New("handed over to another process")

// follow runs the client of the servers. While an upgrade is under way it is held: two
// processes must not write what the proxy was last told, and a sidecar whose stream is
// gone for long would be taken for dead.
func (e *edge) follow(ctx context.Context) error {
	for {
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- e.client.Run(running, e.apply) }()
		var goOn chan struct{}
		select {
		case err := <-ended:
			cancel()
			return err
		case goOn = <-e.pause:
		}
		e.client.Hold()
		goOn <- struct{}{}
		select {
		case <-ctx.Done():
		case <-goOn:
		}
		cancel()
		<-ended
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var err error
		if e.client, err = e.connect(); err != nil {
			return err
		}
	}
}

// ready says that the proxy serves, and has it hand over to the next process from then
// on: whoever is asked to before that has nothing to pass yet, and the process before
// waits for it. That part is the last to start and the first to stop, so that there is
// no next process any more when an instance is withdrawn.
func (e *edge) ready(p *process, cfg Config) error {
	if left := cfg.Inherited.Left(); len(left) > 0 {
		return fmt.Errorf("the process before has open what this one has no use for: %s", strings.Join(left, ", "))
	}
	if err := p.ready(cfg); err != nil {
		return err
	}
	if cfg.Upgrade != nil {
		p.run("upgrade", func(ctx context.Context) error { return e.awaitUpgrade(ctx, p, cfg) })
	}
	return nil
}

// awaitUpgrade hands over when it is asked to. An attempt that fails leaves all
// as it was.
func (e *edge) awaitUpgrade(ctx context.Context, p *process, cfg Config) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cfg.Upgrade:
		}
		pid, err := e.upgrade(ctx, p, cfg)
		if err == nil {
			p.log.Info("handed over; requests in flight end here", "process", pid)
			tellSystemd(fmt.Sprintf("MAINPID=%d", pid))
			<-ctx.Done()
			passOn(cfg.Upgrade, pid)
			return ctx.Err()
		}
		if p.ctx.Err() == nil {
			p.log.Error("the next process does not serve; this one goes on", "program", cfg.Program.Path, "error", err)
		}
	}
}

// passOn passes on what was asked while the next process started: the program may be
// another one since.
func passOn(asked <-chan os.Signal, pid int) {
	select {
	case s := <-asked:
		_ = syscall.Kill(pid, s.(syscall.Signal)) // it is a child that nobody has waited for: the number is its own
	default:
	}
}

// upgrade starts the next process. With no error that one does the work of this one, which
// ends; and this one ends for that reason alone: where it was told to stop while the other
// one became ready, both do.
func (e *edge) upgrade(ctx context.Context, p *process, cfg Config) (pid int, err error) {
	p.log.Info("handing over to another process", "program", cfg.Program.Path)
	goOn := make(chan struct{})
	select {
	case e.pause <- goOn:
		<-goOn
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() {
		if err != nil {
			close(goOn)
		}
	}()
	open := map[string]handover.Socket{lockName: p.lock}
	for address, socket := range e.proxy.Sockets() {
		tcp, ok := socket.(*net.TCPListener)
		if !ok {
			return 0, fmt.Errorf("a %T cannot be handed over", socket)
		}
		open[handover.SocketName("tcp", address)] = tcp
	}
	limited, cancel := context.WithTimeout(ctx, upgradeTime)
	defer cancel()
	if pid, err = handover.Start(limited, cfg.Program, open); err != nil {
		return 0, errors.Join(err, writeHolder(p.lock)) // the other one may have got that far
	}
	p.fail(errHandedOver)
	if why := context.Cause(p.ctx); !errors.Is(why, errHandedOver) {
		handover.End(pid)
		return 0, errors.Join(why, writeHolder(p.lock))
	}
	return pid, nil
}
