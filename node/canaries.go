package node

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/policy/canary"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// The leader looks at what proxies say of canaries when they have said something new,
// at most once in judgeEvery, and in any case once in judgeAnyway: another may have
// led when it was said.
const (
	judgeEvery  = time.Second
	judgeAnyway = 10 * time.Second
)

// mindCanaries aborts for all what fares badly over all proxies, while this member
// leads. A proxy that has given a canary up has judged by the same rule, with what it
// has seen itself: that is enough for all.
func (s *server) mindCanaries(ctx context.Context) error {
	for {
		statuses, changed := s.fleet.Statuses()
		if s.cluster.Leads() {
			s.judgeCanaries(ctx, statuses)
		}
		select {
		case <-changed:
		case <-time.After(judgeAnyway):
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(judgeEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// verdict is what all proxies say of one canary.
type verdict struct {
	canary, stable weirv1.PluginCounts
	aborted        string
}

func (s *server) judgeCanaries(ctx context.Context, statuses []*weirv1.ProxyStatus) {
	for ref, start := range reported(statuses) {
		r, _ := s.store.View().Get(ref)
		trial := r.GetPlugin().GetStatus().GetTrial()
		if trial.GetState() != weirv1.PluginTrial_RUNNING {
			continue
		}
		v := start[trial.GetStartTime().AsTime().UnixNano()]
		if v == nil {
			continue
		}
		reason := v.aborted
		if reason == "" {
			reason = canary.Judge(&v.canary, &v.stable)
		}
		if reason == "" {
			continue
		}
		if err := s.abortCanary(ctx, r.GetPlugin(), v, reason); err != nil {
			s.log.Warn("canary not aborted for all", "plugin", ref.String(), "reason", reason, "error", err)
		} else {
			s.log.Warn("canary aborted", "plugin", ref.String(), "canary", trial.GetDigest(), "reason", reason)
		}
	}
}

// reported sums up what proxies say, by plugin and the start of the trial.
func reported(statuses []*weirv1.ProxyStatus) map[resource.Ref]map[int64]*verdict {
	all := map[resource.Ref]map[int64]*verdict{}
	for _, p := range statuses {
		for _, r := range p.GetPlugins() {
			ref := resource.Ref{Kind: resource.KindPlugin, Tenant: r.GetTenant(), Name: r.GetName()}
			if all[ref] == nil {
				all[ref] = map[int64]*verdict{}
			}
			start := r.GetStartTime().AsTime().UnixNano()
			if all[ref][start] == nil {
				all[ref][start] = new(verdict)
			}
			v := all[ref][start]
			canary.Add(&v.canary, r.GetCanary())
			canary.Add(&v.stable, r.GetStable())
			if r.GetAborted() != "" && v.aborted == "" {
				v.aborted = "by " + p.GetName() + ": " + r.GetAborted()
			}
		}
	}
	return all
}

// abortCanary writes it down, unless somebody has changed the plugin meanwhile.
func (s *server) abortCanary(ctx context.Context, plugin *weirv1.Plugin, v *verdict, reason string) error {
	plugin = proto.CloneOf(plugin)
	trial := plugin.GetStatus().GetTrial()
	trial.State, trial.Reason, trial.EndTime = weirv1.PluginTrial_ABORTED, reason, timestamppb.Now()
	trial.Canary, trial.Stable = &v.canary, &v.stable
	result, err := s.cluster.Propose(ctx, &weirv1.Command{Actor: "weir", Time: timestamppb.Now(),
		Action: &weirv1.Command_TransactVersions{TransactVersions: &weirv1.Transact{Puts: []*weirv1.Resource{resource.Wrap(plugin)}}}})
	var refused *store.RefusedError
	if err == nil && errors.As(asError(result), &refused) && !conflict(refused) {
		err = refused
	}
	return err
}

func asError(result any) error {
	err, _ := result.(error)
	return err
}
