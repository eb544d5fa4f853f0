package admin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Apply normalises and judges the resources, then lets the cluster decide on
// all of them as one transaction.
func (s *service) Apply(ctx context.Context, req *weirv1.ApplyRequest) (*weirv1.ApplyResponse, error) {
	tx := &weirv1.Transact{Deletes: normalRefs(req.GetDeletes())}
	at := map[resource.Ref]resource.Path{}
	var violations []Violation
	for i, r := range req.GetResources() {
		resource.Normalize(r) // the request is ours
		ref := resource.Of(r)
		path := resource.Path("resources").Index(i)
		for _, v := range resource.Validate(r) {
			violations = append(violations, Violation{Ref: ref, Field: v.Field, Reason: ReasonInvalid, Message: v.Message})
		}
		if earlier, twice := at[ref]; twice {
			violations = append(violations, Violation{Ref: ref, Field: "metadata.name", Reason: ReasonInvalid,
				Message: fmt.Sprintf("is in this request twice: %s and %s", earlier, path)})
			continue
		}
		at[ref] = path
		tx.Puts = append(tx.Puts, r)
	}
	violations = append(violations, checkDeletes(tx.Deletes, at)...)
	index := func(ref resource.Ref) resource.Path { return at[ref] }
	if len(violations) > 0 {
		return nil, refusal(&Refused{Violations: violations}, index)
	}
	if err := s.fillStatus(ctx, tx, index); err != nil {
		return nil, err
	}
	if err := s.tryContracts(tx.Puts, index); err != nil {
		return nil, err
	}
	if err := s.tryPolicies(ctx, tx, index); err != nil {
		return nil, err
	}
	if err := s.fillMaterial(tx.Puts, index); err != nil {
		return nil, err
	}
	done, err := s.transact(ctx, tx, req.GetDryRun(), index)
	for _, result := range done.GetResults() {
		result.Resource = shown(result.GetResource())
	}
	return done, err
}

// Delete removes resources, all or none.
func (s *service) Delete(ctx context.Context, req *weirv1.DeleteRequest) (*weirv1.DeleteResponse, error) {
	tx := &weirv1.Transact{Deletes: normalRefs(req.GetRefs())}
	at := map[resource.Ref]resource.Path{}
	if violations := checkDeletes(tx.Deletes, at); len(violations) > 0 {
		return nil, refusal(&Refused{Violations: violations}, func(resource.Ref) resource.Path { return "" })
	}
	for i, m := range tx.Deletes {
		at[resource.RefOf(m)] = resource.Path("refs").Index(i)
	}
	done, err := s.transact(ctx, tx, req.GetDryRun(), func(ref resource.Ref) resource.Path { return at[ref] })
	if err != nil {
		return nil, err
	}
	return &weirv1.DeleteResponse{Revision: done.GetRevision()}, nil
}

// checkDeletes refuses references that cannot be to anything, stand there
// twice, or are put by the same transaction.
func checkDeletes(refs []*weirv1.ResourceRef, puts map[resource.Ref]resource.Path) []Violation {
	var violations []Violation
	refuse := func(ref resource.Ref, message string) {
		violations = append(violations, Violation{Ref: ref, Reason: ReasonInvalid, Message: message})
	}
	seen := map[resource.Ref]bool{}
	for _, m := range refs {
		ref := resource.RefOf(m)
		_, known := resource.ParseKind(ref.Kind)
		_, put := puts[ref]
		switch {
		case !known:
			refuse(ref, fmt.Sprintf("cannot be deleted: there is no kind %q", ref.Kind))
		case ref.Name == "":
			refuse(ref, "cannot be deleted: the name is missing")
		case put:
			refuse(ref, "is put and deleted by the same request")
		case seen[ref]:
			refuse(ref, "is deleted twice by this request")
		}
		seen[ref] = true
	}
	return violations
}

func normalRefs(refs []*weirv1.ResourceRef) []*weirv1.ResourceRef {
	out := make([]*weirv1.ResourceRef, len(refs))
	for i, m := range refs {
		out[i] = normalRef(m).Proto()
	}
	return out
}

// normalRef reads the kind in any spelling and fills in the tenant.
func normalRef(m *weirv1.ResourceRef) resource.Ref {
	ref := resource.RefOf(m)
	if kind, ok := resource.ParseKind(ref.Kind); ok {
		ref.Kind = kind
	}
	return ref
}

// transact decides a transaction, or tries it.
func (s *service) transact(ctx context.Context, tx *weirv1.Transact, dryRun bool, index func(resource.Ref) resource.Path) (*weirv1.ApplyResponse, error) {
	var done *weirv1.ApplyResponse
	var err error
	if dryRun {
		if err := s.sync(ctx); err != nil {
			return nil, err
		}
		done, err = s.Store.DryRun(tx)
	} else {
		done, err = s.decide(ctx, tx)
	}
	var refused *Refused
	if errors.As(err, &refused) {
		s.Logger.Info("change refused", "actor", Actor(ctx), "dry_run", dryRun, "reason", refused.Error())
		return nil, refusal(refused, index)
	}
	if err != nil {
		return nil, fmt.Errorf("decide transaction: %w", err)
	}
	if !dryRun {
		s.audit(ctx, done)
	}
	return done, nil
}

// decide proposes a transaction. While members of earlier versions do not know of a
// plugin's versions, none are kept.
func (s *service) decide(ctx context.Context, tx *weirv1.Transact) (*weirv1.ApplyResponse, error) {
	if !needsVersions(tx) {
		return s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_Transact{Transact: tx}})
	}
	done, err := s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_TransactVersions{TransactVersions: tx}})
	if errors.Is(err, ErrTooNew) {
		if dropVersions(tx); !needsVersions(tx) {
			return s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_Transact{Transact: tx}})
		}
	}
	return done, err
}

// propose puts into a command what the store must not make up by itself.
func (s *service) propose(ctx context.Context, cmd *weirv1.Command) (*weirv1.ApplyResponse, error) {
	var id [16]byte
	rand.Read(id[:])
	cmd.Id, cmd.Time, cmd.Actor = hex.EncodeToString(id[:]), timestamppb.New(time.Now()), Actor(ctx)
	within, cancel := s.deciding(ctx)
	defer cancel()
	done, err := s.Cluster.Propose(within, cmd)
	return done, undecided(ctx, err)
}

// audit logs what a transaction changed.
func (s *service) audit(ctx context.Context, done *weirv1.ApplyResponse) {
	for _, result := range done.GetResults() {
		if result.GetOutcome() == weirv1.ApplyResult_UNCHANGED {
			continue
		}
		s.Logger.LogAttrs(ctx, slog.LevelInfo, "changed", slog.String("actor", Actor(ctx)), slog.Uint64("revision", done.GetRevision()),
			slog.String("resource", resource.RefOf(result.GetRef()).String()), slog.String("outcome", result.GetOutcome().String()))
	}
}
