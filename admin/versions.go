package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/internal/signature"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// How many versions of a plugin are kept, and of what size together: whatever that
// is, the one before stays.
const (
	maxVersions     = 10
	maxVersionBytes = 128 << 20
)

// trustOf is whom a tenant trusts once a transaction is done; nil: now.
func (s *service) trustOf(tenant string, tx *weirv1.Transact) signature.Trust {
	ref := resource.TrustRef(tenant)
	for _, r := range tx.GetPuts() {
		if resource.Of(r) == ref {
			return resource.Trust(r.GetPluginTrust())
		}
	}
	for _, m := range tx.GetDeletes() {
		if resource.RefOf(m) == ref {
			return signature.Trust{}
		}
	}
	stored, _ := s.Store.View().Get(ref)
	return resource.Trust(stored.GetPluginTrust())
}

// checkTrust says which module of a Plugin may not come in. What stays as it is was
// judged when it came.
func (s *service) checkTrust(plugin, old *weirv1.Plugin, trust signature.Trust) (field string, err error) {
	name := plugin.GetMetadata().GetName()
	is, was := plugin.GetSpec(), old.GetSpec()
	if is.GetDigest() != was.GetDigest() || !sameSignatures(is.GetSignatures(), was.GetSignatures()) {
		if _, err := trust.Admit(name, is.GetDigest(), resource.Signatures(is.GetSignatures()), time.Now()); err != nil {
			return "spec.signatures", err
		}
	}
	canary, before := is.GetCanary(), was.GetCanary()
	if canary != nil && (canary.GetDigest() != before.GetDigest() || !sameSignatures(canary.GetSignatures(), before.GetSignatures())) {
		if _, err := trust.Admit(name, canary.GetDigest(), resource.Signatures(canary.GetSignatures()), time.Now()); err != nil {
			return "spec.canary.signatures", err
		}
	}
	return "", nil
}

func sameSignatures(a, b []*weirv1.PluginSignature) bool {
	return slices.EqualFunc(a, b, func(a, b *weirv1.PluginSignature) bool { return proto.Equal(a, b) })
}

// advance writes the history of a Plugin that follows another, or none, into its
// status, which says what its module is.
func advance(plugin, old *weirv1.Plugin, actor string, now time.Time) {
	if plugin.Status == nil {
		plugin.Status = new(weirv1.PluginStatus) // the store refuses it: the module is not there
	}
	at := timestamppb.New(now)
	is, status := plugin.GetSpec(), plugin.GetStatus()
	versions := versionsOf(old)
	if len(versions) > 0 && versions[0].GetDigest() == is.GetDigest() {
		versions[0].Signatures = is.GetSignatures()
	} else {
		versions = slices.DeleteFunc(versions, func(v *weirv1.PluginVersion) bool { return v.GetDigest() == is.GetDigest() })
		versions = slices.Insert(versions, 0, &weirv1.PluginVersion{Digest: is.GetDigest(), Signatures: is.GetSignatures(),
			SizeBytes: status.GetSizeBytes(), Abi: status.GetAbi(), Time: at, Actor: actor})
	}
	status.Versions = bounded(versions)
	status.Trial = nextTrial(plugin, old, at)
}

// versionsOf are those of a stored Plugin, as a copy. One of before there were
// versions has the one in force.
func versionsOf(old *weirv1.Plugin) []*weirv1.PluginVersion {
	if old == nil {
		return nil
	}
	kept := proto.CloneOf(old.GetStatus()).GetVersions()
	if len(kept) == 0 || kept[0].GetDigest() != old.GetSpec().GetDigest() {
		kept = slices.Insert(kept, 0, &weirv1.PluginVersion{Digest: old.GetSpec().GetDigest(), Signatures: old.GetSpec().GetSignatures(),
			SizeBytes: old.GetStatus().GetSizeBytes(), Abi: old.GetStatus().GetAbi(), Time: old.GetMetadata().GetUpdateTime()})
	}
	return kept
}

func bounded(versions []*weirv1.PluginVersion) []*weirv1.PluginVersion {
	var bytes uint64
	for i, v := range versions {
		if bytes += v.GetSizeBytes(); i >= maxVersions || i >= 2 && bytes > maxVersionBytes {
			return versions[:i]
		}
	}
	return versions
}

// nextTrial is how it stands with the canary, if there is one: a trial goes on as
// long as both modules and the share stay as they are.
func nextTrial(plugin, old *weirv1.Plugin, at *timestamppb.Timestamp) *weirv1.PluginTrial {
	is, was := plugin.GetSpec(), old.GetSpec()
	canary, trial := is.GetCanary(), proto.CloneOf(old.GetStatus().GetTrial())
	goesOn := canary != nil && is.GetDigest() == was.GetDigest() && canary.GetDigest() == was.GetCanary().GetDigest() &&
		canary.GetPercent() == was.GetCanary().GetPercent() && trial.GetDigest() == canary.GetDigest()
	switch {
	case goesOn:
		return trial
	case canary != nil:
		return &weirv1.PluginTrial{Digest: canary.GetDigest(), Percent: canary.GetPercent(), StartTime: at, State: weirv1.PluginTrial_RUNNING}
	case trial.GetState() == weirv1.PluginTrial_RUNNING:
		trial.State, trial.EndTime = weirv1.PluginTrial_ENDED, at
		if is.GetDigest() == trial.GetDigest() {
			trial.State = weirv1.PluginTrial_PROMOTED
		}
	}
	return trial
}

// afresh is a Plugin whose canary, if it was aborted, was never tried.
func afresh(old *weirv1.Plugin) *weirv1.Plugin {
	if old.GetStatus().GetTrial().GetState() != weirv1.PluginTrial_ABORTED {
		return old
	}
	old = proto.CloneOf(old)
	old.Status.Trial = nil
	return old
}

// needsVersions: members of earlier versions have no such kind, or would not keep what a transaction
// refers to.
func needsVersions(tx *weirv1.Transact) bool {
	return slices.ContainsFunc(tx.GetPuts(), func(r *weirv1.Resource) bool {
		if r.GetPlugin() == nil {
			return slices.Contains(resource.NewerKinds, resource.KindOf(r))
		}
		modules := 0
		for range resource.References(r) {
			modules++
		}
		return modules > 1 || r.GetPlugin().GetSpec().GetCanary() != nil || r.GetPlugin().GetStatus().GetTrial() != nil
	})
}

func dropVersions(tx *weirv1.Transact) {
	for _, r := range tx.GetPuts() {
		if r.GetPlugin() != nil {
			r.GetPlugin().Status.Versions = nil
		}
	}
}

// PromotePlugin gives the canary another share, or brings it into force.
func (s *service) PromotePlugin(ctx context.Context, req *weirv1.PromotePluginRequest) (*weirv1.PromotePluginResponse, error) {
	old, plugin, err := s.pluginToChange(ctx, req.GetTenant(), req.GetName())
	if err != nil {
		return nil, err
	}
	canary, trial := plugin.GetSpec().GetCanary(), old.GetStatus().GetTrial()
	aborted := trial.GetState() == weirv1.PluginTrial_ABORTED && trial.GetDigest() == canary.GetDigest()
	switch {
	case canary == nil:
		return nil, s.state(old, "has no canary: push one with a share (canary_percent)")
	case req.GetCanaryPercent() != 0:
		canary.Percent = req.GetCanaryPercent()
		old = afresh(old)
	case aborted && !req.GetForce():
		return nil, s.state(old, "its canary %s was aborted: %s", canary.GetDigest(), trial.GetReason())
	default:
		plugin.Spec.Digest, plugin.Spec.Signatures, plugin.Spec.Canary = canary.GetDigest(), canary.GetSignatures(), nil
	}
	if !req.GetForce() {
		if err := s.refuseUsers(ctx, plugin, old, nil); err != nil {
			return nil, err
		}
	}
	plugin, revision, err := s.changePlugin(ctx, plugin, old, req.GetDryRun())
	return &weirv1.PromotePluginResponse{Plugin: plugin, Revision: revision}, err
}

// RollbackPlugin brings a version into force that was there before.
func (s *service) RollbackPlugin(ctx context.Context, req *weirv1.RollbackPluginRequest) (*weirv1.RollbackPluginResponse, error) {
	old, plugin, err := s.pluginToChange(ctx, req.GetTenant(), req.GetName())
	if err != nil {
		return nil, err
	}
	to, err := s.rollbackTo(old, req.GetDigest())
	if err != nil {
		return nil, err
	}
	plugin.Spec.Digest, plugin.Spec.Signatures, plugin.Spec.Canary = to.GetDigest(), to.GetSignatures(), nil
	if !req.GetForce() {
		if err := s.refuseUsers(ctx, plugin, old, nil); err != nil {
			return nil, err
		}
	}
	plugin, revision, err := s.changePlugin(ctx, plugin, old, req.GetDryRun())
	return &weirv1.RollbackPluginResponse{Plugin: plugin, Revision: revision}, err
}

// rollbackTo finds a version by the beginning of its digest.
func (s *service) rollbackTo(old *weirv1.Plugin, digest string) (*weirv1.PluginVersion, error) {
	versions := versionsOf(old)
	switch {
	case digest == "" && old.GetSpec().GetCanary() != nil:
		return versions[0], nil
	case digest == "" && len(versions) < 2:
		return nil, s.state(old, "has no version before the one in force")
	case digest == "":
		return versions[1], nil
	}
	var found []*weirv1.PluginVersion
	for _, v := range versions {
		if strings.HasPrefix(v.GetDigest(), digest) || strings.HasPrefix(strings.TrimPrefix(v.GetDigest(), "sha256:"), digest) {
			found = append(found, v)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	var kept []string
	for _, v := range versions {
		kept = append(kept, v.GetDigest())
	}
	return nil, refusal(&Refused{Violations: []Violation{{Ref: resource.Of(resource.Wrap(old)), Reason: ReasonNotFound,
		Message: fmt.Sprintf("%d of its versions begin with %q; those that are kept are %s", len(found), digest, strings.Join(kept, ", "))}}},
		func(resource.Ref) resource.Path { return "" })
}

func (s *service) state(plugin *weirv1.Plugin, format string, args ...any) error {
	return refusal(&Refused{Violations: []Violation{{Ref: resource.Of(resource.Wrap(plugin)), Reason: ReasonState, Message: fmt.Sprintf(format, args...)}}},
		func(resource.Ref) resource.Path { return "" })
}

// pluginToChange returns a stored Plugin twice, each for the caller to change.
func (s *service) pluginToChange(ctx context.Context, tenant, name string) (old, plugin *weirv1.Plugin, err error) {
	if err := s.sync(ctx); err != nil {
		return nil, nil, err
	}
	ref := resource.RefOf(&weirv1.ResourceRef{Kind: resource.KindPlugin, Tenant: tenant, Name: name})
	stored := s.storedPlugin(ref)
	if stored == nil {
		return nil, nil, refusal(&Refused{Violations: []Violation{{Ref: ref, Reason: ReasonNotFound, Message: "it is not there"}}},
			func(resource.Ref) resource.Path { return "" })
	}
	return proto.CloneOf(stored), proto.CloneOf(stored), nil
}

// changePlugin stores a Plugin in the place of another, if nobody else changes that
// meanwhile: its revision is in it.
func (s *service) changePlugin(ctx context.Context, plugin, old *weirv1.Plugin, dryRun bool) (*weirv1.Plugin, uint64, error) {
	wrapped := resource.Wrap(plugin)
	if violations := resource.Validate(wrapped); len(violations) > 0 {
		return nil, 0, invalid(pushField(violations[0].Field), "%s", violations[0].Message)
	}
	ref := resource.Of(wrapped)
	refuse := func(field, message string) error { return s.state(old, "%s: %s", field, message) }
	if field, err := s.checkTrust(plugin, old, s.trustOf(ref.Tenant, nil)); err != nil {
		return nil, 0, refuse(field, err.Error())
	}
	if digest := plugin.GetSpec().GetDigest(); digest != old.GetSpec().GetDigest() {
		status, err := s.admitStored(ctx, plugin, digest, refuse)
		if err != nil {
			return nil, 0, err
		}
		plugin.Status = status
	}
	advance(plugin, old, Actor(ctx), time.Now())
	return s.putPlugin(ctx, plugin, dryRun)
}
