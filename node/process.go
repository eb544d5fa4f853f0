package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/weirmesh/weir/identity"
)

// readyLine is what scripts wait for.
const readyLine = "weir: ready"

// Run runs a process until ctx ends or a part of it fails, and stops all of it.
// It returns nil when it was ctx that ended it.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p := newProcess(ctx, cfg.Logger)
	err := p.start(cfg)
	if err == nil {
		<-p.ctx.Done()
	}
	if cause := context.Cause(p.ctx); cause != nil && ctx.Err() == nil {
		err = cause // a part failed, and what came of that is no news
	}
	if errors.Is(err, errHandedOver) {
		err = nil
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // it was told to stop while it started
	}
	return errors.Join(err, p.stop())
}

// process is the parts that run, in the order in which they were started.
type process struct {
	// ctx ends when the process is to stop.
	ctx   context.Context
	fail  context.CancelCauseFunc
	log   *slog.Logger
	parts []part
	lock  *os.File // of the data directory
}

type part struct {
	name string
	stop func() error
}

func newProcess(ctx context.Context, log *slog.Logger) *process {
	p := &process{log: log}
	p.ctx, p.fail = context.WithCancelCause(ctx)
	return p
}

// onStop undoes a step of the start.
func (p *process) onStop(name string, stop func() error) {
	p.parts = append(p.parts, part{name, stop})
}

// run starts a part that runs until its own context ends; if it ends sooner,
// the process has failed.
func (p *process) run(name string, work func(context.Context) error) {
	// Not p.ctx: a part goes on until those that build on it have stopped.
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.ctx))
	done := make(chan error, 1)
	go func() {
		err := work(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("it ended by itself")
			}
			p.fail(fmt.Errorf("run %s: %w", name, err))
			err = nil
		} else if errors.Is(err, context.Canceled) {
			err = nil
		}
		done <- err
	}()
	p.onStop(name, func() error {
		cancel()
		return <-done
	})
}

// stop stops the parts, the last one first.
func (p *process) stop() error {
	p.fail(nil)
	var errs []error
	for _, part := range slices.Backward(p.parts) {
		p.log.Debug("stopping", "part", part.name)
		if err := part.stop(); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", part.name, err))
		}
	}
	return errors.Join(errs...)
}

func (p *process) start(cfg Config) error {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var err error
	if p.lock, err = lockDir(cfg.Data, cfg.Inherited.File(lockName)); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.onStop("lock", p.lock.Close)
	switch {
	case cfg.Sidecar != nil:
		return p.startSidecar(cfg)
	case cfg.Server == nil:
		return p.startEdgeAlone(cfg)
	case cfg.Edge == nil:
		return p.startServerAlone(cfg)
	}
	return p.startBoth(cfg)
}

func (p *process) startServerAlone(cfg Config) error {
	host, err := p.startHost(cfg)
	if err != nil {
		return err
	}
	if _, err := p.startServer(cfg, *cfg.Server, cfg.Data, host); err != nil {
		return err
	}
	return p.ready(cfg)
}

func (p *process) startEdgeAlone(cfg Config) error {
	host, err := p.startHost(cfg)
	if err != nil {
		return err
	}
	e, err := p.startEdge(cfg, *cfg.Edge, cfg.Data, host)
	if err != nil {
		return err
	}
	if err := e.awaitForce(p.ctx); err != nil {
		return err
	}
	return e.ready(p, cfg)
}

// startBoth is `weir dev`. The edge gets a token as any edge would, and joins
// over the network like any other.
func (p *process) startBoth(cfg Config) error {
	host, err := p.startHost(cfg)
	if err != nil {
		return err
	}
	s, err := p.startServer(cfg, *cfg.Server, filepath.Join(cfg.Data, "server"), host)
	if err != nil {
		return err
	}
	edge, dir := *cfg.Edge, filepath.Join(cfg.Data, "edge")
	edge.Servers = []string{s.nodeAddress}
	if edge.Token, err = s.localToken(p.ctx, dir, proxyRole{role: identity.RoleEdge}); err != nil {
		return err
	}
	if _, err := p.startEdge(cfg, edge, dir, host); err != nil {
		return err
	}
	if err := p.declareFirst(cfg, s); err != nil {
		return err
	}
	if cfg.Demo {
		if err := p.startDemoSidecars(cfg, s); err != nil {
			return err
		}
	}
	if err := s.awaitAccepted(p.ctx, edge.Name); err != nil {
		return err
	}
	if cfg.Demo {
		fmt.Fprint(cfg.Hints, demoHints(s.adminAddress, cfg.Edge.Admin))
	}
	if cfg.Task != nil {
		p.run("task", func(ctx context.Context) error {
			api, hangUp := dialAdmin(s.adminAddress)
			defer hangUp()
			return cfg.Task(ctx, api)
		})
	}
	return p.ready(cfg)
}

// declareFirst declares what a process of its own accord does.
func (p *process) declareFirst(cfg Config, s *server) error {
	api, hangUp := dialAdmin(s.adminAddress)
	defer hangUp()
	switch {
	case cfg.Demo:
		return p.startDemo(api)
	case cfg.Server.Starter != "":
		return p.declareStarter(s, cfg.Server.Starter, api)
	}
	return nil
}

func (p *process) ready(cfg Config) error {
	if err := context.Cause(p.ctx); err != nil {
		return err
	}
	if cfg.Inherited != nil {
		if err := writeHolder(p.lock); err != nil {
			return fmt.Errorf("say who has the data directory: %w", err)
		}
	}
	if _, err := fmt.Fprintln(cfg.Out, readyLine); err != nil {
		return fmt.Errorf("say that all is ready: %w", err)
	}
	return cfg.Inherited.Ready()
}
