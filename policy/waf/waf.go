// Package waf is the web application firewall: a native policy that compares
// exchanges with the OWASP core rule set, by Coraza. It is the only importer of
// both.
//
//	weirv1.Firewall ─▶ ruleset (compiled once) ─▶ policy ─▶ filter ─▶ transaction
//	                    shared by equal settings             one exchange at a time
//
// A [Host] makes policies; it is a policy.Maker. Compiling takes a fifth of a
// second and happens in Make, one at a time. A ruleset belongs to whoever has the
// same settings, in this generation or another, and is given up with the last of
// them.
//
// # What is looked at
//
// A request's head, then its body, which is held until it is judged; so nothing
// of it reaches the service before. It is passed on as it came. Bodies of gRPC are
// not looked at: they are messages of a stream that may wait for answers. Answers
// are looked at if the settings say so.
//
// # What an exchange may cost
//
// Memory: bodies are looked at up to a limit (the settings'), never put into
// files, and parsed into at most so many arguments, so deep. Time: the engine's
// expressions are linear in what they are matched with, so time is bounded by the
// limits. The engine looks at no more exchanges at a time than there are processors,
// and at fewer that have bodies which are not small; the others wait for their turn,
// until their deadline. So a flood keeps no one waiting who does not pass a firewall,
// and long bodies leave processors to short ones.
//
// # What is told
//
// An exchange in which a rule matched is one line in the log (audit.go): which
// rules, in which part of the request by its name, never with its value. Clients
// learn the request's id.
//
// # What rules may not do
//
// A policy's own rules may neither read files nor run programs, look up names,
// change the environment, or write logs (own.go, restrict.go): such are refused
// when they are applied, and would not compile.
package waf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Config is what a Host needs. The zero value is ready.
type Config struct {
	// Logger gets a line for each exchange in which a rule matched.
	Logger *slog.Logger
	// Turns is how many bodies that are not small are looked at at a time. Default
	// half of the processors, at least one.
	Turns int
}

// Host makes policies and owns what they share.
type Host struct {
	logger *slog.Logger
	meters meters
	// compiling holds one token: the other processors are for exchanges.
	compiling chan struct{}
	small     chan struct{} // a token for each exchange that is looked at
	turns     chan struct{} // and for each whose body is not small

	mu   sync.Mutex
	sets map[string]*shared
}

var _ policy.Maker = (*Host)(nil)

// NewHost compiles nothing yet.
func NewHost(config Config) *Host {
	restrict()
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Host{
		logger:    logger,
		compiling: make(chan struct{}, 1),
		small:     make(chan struct{}, runtime.GOMAXPROCS(0)),
		turns:     make(chan struct{}, cmp.Or(config.Turns, max(1, runtime.GOMAXPROCS(0)/2))),
		sets:      map[string]*shared{},
	}
}

// shared is a ruleset that exists or is being compiled. ready is closed when set
// and err are there.
type shared struct {
	ready chan struct{}
	set   *ruleset
	err   error
	refs  int // under Host.mu
}

// Make implements policy.Maker.
func (h *Host) Make(ctx context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	if spec.Native != policy.Firewall {
		return nil, fmt.Errorf("make policy %s: it is not the firewall's use", spec.Name)
	}
	set, err := h.acquire(ctx, spec.Config)
	if err != nil {
		return nil, fmt.Errorf("compile firewall: %w", err)
	}
	return newPolicy(h, spec, set), nil
}

// acquire returns the ruleset of these settings; release gives it back.
func (h *Host) acquire(ctx context.Context, settings string) (*ruleset, error) {
	h.mu.Lock()
	s := h.sets[settings]
	fresh := s == nil
	if fresh {
		s = &shared{ready: make(chan struct{})}
		h.sets[settings] = s
	}
	s.refs++
	h.mu.Unlock()
	if fresh {
		go h.compile(settings, s) // ends when it is compiled, whoever still waits
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		h.release(settings)
		return nil, ctx.Err()
	}
	if s.err != nil {
		h.release(settings)
		return nil, s.err
	}
	return s.set, nil
}

// compile fills in a ruleset. If nobody waits for it any more it is given up.
func (h *Host) compile(settings string, s *shared) {
	h.compiling <- struct{}{}
	defer func() { <-h.compiling }()
	h.mu.Lock()
	wanted := s.refs > 0
	h.mu.Unlock()
	if !wanted {
		s.err = errors.New("nobody waits for it")
		close(s.ready)
		return
	}
	var f weirv1.Firewall
	if s.err = proto.Unmarshal([]byte(settings), &f); s.err == nil {
		s.set, s.err = compile(&f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	close(s.ready)
	if s.refs == 0 && s.set != nil {
		s.set.close()
	}
}

// release undoes one acquire.
func (h *Host) release(settings string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sets[settings]
	if s.refs--; s.refs > 0 {
		return
	}
	delete(h.sets, settings)
	select {
	case <-s.ready:
		if s.set != nil {
			s.set.close()
		}
	default: // who compiles it will find that nobody wants it
	}
}

// Rulesets counts those that are compiled, or are being.
func (h *Host) Rulesets() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sets)
}

// Problem is what Check has against settings. Field is the one it lies in, below
// spec.waf: "rules", "exclusions[0].ruleIds[1]".
type Problem struct{ Field, Message string }

func (p *Problem) Error() string { return p.Field + ": " + p.Message }

// Check says whether settings compile, and whether what they exclude is there. Its
// error is a *Problem, or the context's.
func (h *Host) Check(ctx context.Context, f *weirv1.Firewall) error {
	if err := checkExclusions(f); err != nil {
		return err
	}
	settings, err := policy.EncodeFirewall(f)
	if err != nil {
		return &Problem{"", err.Error()}
	}
	if _, err := h.acquire(ctx, settings); err != nil {
		var problem *Problem
		if ctx.Err() != nil || errors.As(err, &problem) {
			return err
		}
		return &Problem{"", err.Error()}
	}
	h.release(settings)
	return nil
}
