// Package api is what an Api declares, as policies: where in its life a version is,
// who calls, and whether what passes is as its contract says.
//
//	Api, Contract ─▶ Host.Make ─▶ operation: Exchange.Api, Exchange.Operation
//	                          ├─▶ lifecycle: 404, 410, Deprecation, Sunset, Link
//	                          ├─▶ keys:      401, 403, or Exchange.Consumer
//	                          └─▶ contract:  400, 413, 502, or a report
//
// What is called is known before anything is decided, so that it is logged, and counted,
// whatever becomes of the request. The life of a version stands before all policies that
// are declared, so that one that is no more asks nobody for a key. The keys stand before
// those that authenticate, which may want to know who calls; the checks behind those that
// authenticate, authorise and
// limit, and before those that transform: what the client has sent is compared, not
// what becomes of it; and of an answer what the client will get.
//
// # Promises
//
//   - A document is compiled once, however many rules and policies it is for, and freed
//     with the last of them.
//   - A request that is refused was not shown to the service. One whose check is
//     reported is not changed, nor is it held up by what is wrong with it.
//   - Who is not known does not reach the service: not while keys are being changed, nor
//     where an Api's policy cannot be made, since then its Route is not brought into force.
//   - A key is shown to nobody: neither to the service nor to policies that follow.
//   - Bodies that are checked are bounded; what is not checked streams.
//   - What is said of a violation has pointers, rules and names, and no values.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/consumer"
	"github.com/weirmesh/weir/contract"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Host makes policies of Apis. Make it with [NewHost].
type Host struct {
	log       *slog.Logger
	consumers *consumer.Registry
	meters    *meters

	mu        sync.Mutex
	documents map[string]*document // by their text
}

// document is a contract that policies share.
type document struct {
	contract *contract.Contract
	uses     int
}

// Config is what a Host needs.
type Config struct {
	// Logger gets reports.
	Logger *slog.Logger
	// Consumers are those who may call; nil: Apis that ask for keys cannot be made.
	Consumers *consumer.Registry
}

// NewHost returns a host.
func NewHost(c Config) *Host {
	return &Host{log: c.Logger, consumers: c.Consumers, meters: newMeters(), documents: map[string]*document{}}
}

var _ policy.Maker = (*Host)(nil)

// Make implements policy.Maker for the native policies policy.Operation, policy.Lifecycle,
// policy.APIKey and policy.Contract.
func (h *Host) Make(_ context.Context, spec policy.Spec, _ policy.Services) (policy.Policy, error) {
	declared := new(weirv1.ApiSpec)
	if err := proto.Unmarshal([]byte(spec.Config), declared); err != nil {
		return nil, fmt.Errorf("read Api %s: %w", spec.Name, err)
	}
	switch spec.Native {
	case policy.Operation:
		return h.newOperation(spec, declared)
	case policy.Lifecycle:
		return newLifecycle(spec, declared), nil
	case policy.APIKey:
		return h.newKeys(spec, declared)
	case policy.Contract:
		return h.newChecks(spec, declared)
	}
	return nil, fmt.Errorf("make %q: it is no policy of an Api", spec.Native)
}

// acquire compiles a document, or finds it compiled. The caller gives it back by
// release.
func (h *Host) acquire(text string) (*contract.Contract, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.documents[text]
	if d == nil {
		compiled, err := contract.Compile([]byte(text))
		if err != nil {
			return nil, err
		}
		d = &document{contract: compiled}
		h.documents[text] = d
	}
	d.uses++
	return d.contract, nil
}

func (h *Host) release(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.documents[text]
	if d.uses--; d.uses == 0 {
		delete(h.documents, text)
	}
}

// Documents counts those that are compiled.
func (h *Host) Documents() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.documents)
}
