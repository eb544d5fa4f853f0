package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeapi"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// registry declares Instances for their sidecars.
type registry struct{ s *server }

var _ nodeapi.Instances = registry{}

// Register implements nodeapi.Instances. A sidecar says the same every few seconds,
// and only what is news is written.
func (r registry) Register(ctx context.Context, sidecar identity.ID, spec *weirv1.InstanceSpec) error {
	ref := instanceRef(sidecar)
	view := r.s.store.View()
	if old, ok := view.Get(ref); ok && proto.Equal(old.GetInstance().GetSpec(), spec) {
		return nil
	}
	service := resource.Ref{Kind: resource.KindService, Tenant: sidecar.Tenant, Name: sidecar.Service}
	if _, ok := view.Get(service); !ok {
		return fmt.Errorf("%w: %s is not declared", nodeapi.ErrInstance, service)
	}
	put := resource.Wrap(&weirv1.Instance{Metadata: &weirv1.Metadata{Tenant: ref.Tenant, Name: ref.Name}, Spec: spec})
	resource.Normalize(put)
	if wrong := resource.Validate(put); len(wrong) > 0 {
		return fmt.Errorf("%w: %s %s", nodeapi.ErrInstance, wrong[0].Field, wrong[0].Message)
	}
	return r.s.transact(ctx, sidecar.String(), &weirv1.Transact{Puts: []*weirv1.Resource{put}})
}

// Withdraw implements nodeapi.Instances.
func (r registry) Withdraw(ctx context.Context, sidecar identity.ID) error {
	return r.s.withdraw(ctx, sidecar.String(), instanceRef(sidecar))
}

func instanceRef(sidecar identity.ID) resource.Ref {
	return resource.Ref{Kind: resource.KindInstance, Tenant: sidecar.Tenant, Name: sidecar.Name}
}

// withdraw takes an Instance away, if it is there.
func (s *server) withdraw(ctx context.Context, actor string, ref resource.Ref) error {
	err := s.transact(ctx, actor, &weirv1.Transact{Deletes: []*weirv1.ResourceRef{ref.Proto()}})
	var refused *store.RefusedError
	if errors.As(err, &refused) {
		return nil // it was not there
	}
	return err
}

// transact proposes a change with kinds that earlier versions do not know.
func (s *server) transact(ctx context.Context, actor string, t *weirv1.Transact) error {
	result, err := s.cluster.Propose(ctx, &weirv1.Command{Actor: actor, Time: timestamppb.Now(),
		Action: &weirv1.Command_TransactVersions{TransactVersions: t}})
	if err != nil {
		return err
	}
	return asError(result)
}

const (
	// An Instance is withdrawn when its sidecar has been connected to no server for so
	// long: more than it takes to go to another one, and with what it takes to notice
	// that it is gone less than 10 s.
	absence = 4 * time.Second
	// settling is how long a server withdraws none that has just started, or that has
	// known no leader for long: maybe no server was, and the sidecars are on their way.
	settling  = 20 * time.Second
	lookAgain = time.Second
)

// mindInstances withdraws the Instances of those who are gone, while this member leads.
func (s *server) mindInstances(ctx context.Context) error {
	since := time.Now() // it can tell who is gone
	alone := unled{since}
	var absent absences
	for {
		statuses, changed := s.fleet.Statuses()
		now := time.Now()
		if alone.long(s.cluster.Leader(), now) {
			since = now
		}
		if s.cluster.Leads() {
			for _, ref := range absent.gone(s.instances(), statuses, since, now) {
				s.withdrawAbsent(ctx, ref)
			}
		} else {
			absent = nil // whoever leads next has seen nothing of it
		}
		select {
		case <-changed:
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) withdrawAbsent(ctx context.Context, ref resource.Ref) {
	ctx, cancel := context.WithTimeout(ctx, absence)
	defer cancel()
	if err := s.withdraw(ctx, "weir", ref); err != nil {
		s.log.Warn("instance of an absent sidecar not withdrawn", "instance", ref.String(), "error", err)
		return
	}
	s.log.Info("instance withdrawn: its sidecar is connected to no server", "instance", ref.String())
}

func (s *server) instances() []*weirv1.Resource {
	all, _ := s.store.View().List(resource.KindInstance, store.AllTenants, resource.Ref{}, math.MaxInt)
	return all
}

// absences are since when sidecars with an Instance are connected nowhere.
type absences map[resource.Ref]time.Time

// gone brings them up to date, and returns those that have lasted for too long.
func (a *absences) gone(instances []*weirv1.Resource, proxies []*weirv1.ProxyStatus, since, now time.Time) (gone []resource.Ref) {
	if len(instances) == 0 {
		*a = nil
		return nil
	}
	here := make(map[string]bool, len(proxies))
	for _, p := range proxies {
		if p.GetConnected() && p.GetService() != "" {
			here[p.GetName()] = true
		}
	}
	was := maps.Clone(*a)
	*a = absences{}
	for _, r := range instances {
		ref := resource.Of(r)
		if here[r.GetInstance().GetSpec().GetNode()] {
			continue
		}
		left, known := was[ref]
		if !known {
			left = now
		}
		(*a)[ref] = left
		if now.Sub(left) >= absence && now.Sub(since) >= settling {
			gone = append(gone, ref)
		}
	}
	return gone
}
