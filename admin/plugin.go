package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// chunkBytes is the part of a module that travels in one log entry.
const chunkBytes = 480 << 10

// PushPlugin judges a module, stores it by its digest and lets the Plugin point
// at it. What the call does not say of an existing Plugin (limits, labels)
// stays as it is.
func (s *service) PushPlugin(ctx context.Context, req *weirv1.PushPluginRequest) (*weirv1.PushPluginResponse, error) {
	if err := checkModule(req.GetModule()); err != nil {
		return nil, err
	}
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	plugin := s.pluginToBe(req)
	wrapped := resource.Wrap(plugin)
	if violations := resource.Validate(wrapped); len(violations) > 0 {
		return nil, invalid(pushField(violations[0].Field), "%s", violations[0].Message)
	}
	old := s.storedPlugin(resource.Of(wrapped))
	if old == nil && req.GetCanaryPercent() > 0 {
		return nil, invalid("canary_percent", "cannot be: nothing is in force under the name %q yet; push it without", req.GetName())
	}
	if field, err := s.checkTrust(plugin, old, s.trustOf(resource.Of(wrapped).Tenant, nil)); err != nil {
		return nil, invalid(field, "%s", err)
	}
	admitted, err := s.admit(ctx, req.GetName(), req.GetModule(), plugin.GetSpec().GetLimits())
	if err != nil {
		return nil, err
	}
	if req.GetCanaryPercent() > 0 {
		old = afresh(old)
		admitted = proto.CloneOf(old.GetStatus())
	}
	if !req.GetForce() {
		if err := s.refuseUsers(ctx, plugin, s.storedPlugin(resource.Of(wrapped)), req.GetModule()); err != nil {
			return nil, err
		}
	}
	plugin.Status = admitted
	advance(plugin, old, Actor(ctx), time.Now())
	if req.GetDryRun() {
		return &weirv1.PushPluginResponse{Plugin: plugin}, nil
	}
	if err := s.storeBlob(ctx, digestOf(req.GetModule()), req.GetModule()); err != nil {
		return nil, err
	}
	plugin, revision, err := s.putPlugin(ctx, plugin, false)
	return &weirv1.PushPluginResponse{Plugin: plugin, Revision: revision}, err
}

// putPlugin stores a Plugin, or tries to.
func (s *service) putPlugin(ctx context.Context, plugin *weirv1.Plugin, dryRun bool) (*weirv1.Plugin, uint64, error) {
	tx := &weirv1.Transact{Puts: []*weirv1.Resource{resource.Wrap(plugin)}}
	done, err := s.transact(ctx, tx, dryRun, func(resource.Ref) resource.Path { return "plugin" })
	if err != nil {
		return nil, 0, err
	}
	for _, result := range done.GetResults() {
		plugin = result.GetResource().GetPlugin()
	}
	return plugin, done.GetRevision(), nil
}

// storedPlugin is what is declared, nil for nothing.
func (s *service) storedPlugin(ref resource.Ref) *weirv1.Plugin {
	stored, _ := s.Store.View().Get(ref)
	return stored.GetPlugin()
}

// PushModule judges a module and stores it, for a Plugin to come.
func (s *service) PushModule(ctx context.Context, req *weirv1.PushModuleRequest) (*weirv1.PushModuleResponse, error) {
	if err := checkModule(req.GetModule()); err != nil {
		return nil, err
	}
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	if _, err := s.admit(ctx, "", req.GetModule(), req.GetLimits()); err != nil {
		return nil, err
	}
	digest := digestOf(req.GetModule())
	if err := s.storeBlob(ctx, digest, req.GetModule()); err != nil {
		return nil, err
	}
	s.Logger.Info("module pushed", "actor", Actor(ctx), "digest", digest)
	return &weirv1.PushModuleResponse{Digest: digest}, nil
}

// GetModule reads a module by its digest: what is there under it is right. What
// is not may only have not come here yet.
func (s *service) GetModule(ctx context.Context, req *weirv1.GetModuleRequest) (*weirv1.GetModuleResponse, error) {
	module, err := s.Store.Blob(req.GetDigest())
	if err == nil && module == nil {
		if err := s.sync(ctx); err != nil {
			return nil, err
		}
		module, err = s.Store.Blob(req.GetDigest())
	}
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if module == nil {
		return nil, connect.Errorf(connect.CodeNotFound, "there is no module %s", req.GetDigest())
	}
	return &weirv1.GetModuleResponse{Module: module}, nil
}

func checkModule(module []byte) error {
	switch size := len(module); {
	case size == 0:
		return invalid("module", "is empty; give a WASM module")
	case size > maxModule:
		return invalid("module", "is %d bytes long; a module has at most %d", size, maxModule)
	}
	return nil
}

func (s *service) admit(ctx context.Context, name string, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	admitted, err := s.Admission.Admit(ctx, name, module, limits)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, invalid("module", "%s", err)
	}
	return admitted, nil
}

func digestOf(module []byte) string {
	sum := sha256.Sum256(module)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// pluginToBe is the stored Plugin with what the call changes.
func (s *service) pluginToBe(req *weirv1.PushPluginRequest) *weirv1.Plugin {
	digest := digestOf(req.GetModule())
	plugin := &weirv1.Plugin{
		Metadata: &weirv1.Metadata{Name: req.GetName(), Tenant: req.GetTenant(), Labels: req.GetLabels()},
		Spec:     &weirv1.PluginSpec{Digest: digest, Limits: req.GetLimits(), Signatures: req.GetSignatures()},
	}
	resource.Normalize(resource.Wrap(plugin))
	old := s.storedPlugin(resource.Of(resource.Wrap(plugin)))
	if old != nil {
		// What is taken over must not undo what someone changes meanwhile.
		plugin.Metadata.Revision = old.GetMetadata().GetRevision()
		plugin.Metadata.Annotations = old.GetMetadata().GetAnnotations()
		if len(req.GetLabels()) == 0 {
			plugin.Metadata.Labels = old.GetMetadata().GetLabels()
		}
		plugin.Spec.Limits = mergeLimits(req.GetLimits(), old.GetSpec().GetLimits())
		plugin.Spec.AllowOnHeadersStopIteration = old.GetSpec().GetAllowOnHeadersStopIteration()
		if digest == old.GetSpec().GetDigest() {
			plugin.Spec.Signatures = mergeSignatures(req.GetSignatures(), old.GetSpec().GetSignatures())
		}
	}
	if percent := req.GetCanaryPercent(); percent != 0 {
		canary := &weirv1.PluginCanary{Digest: digest, Percent: percent, Signatures: req.GetSignatures()}
		if was := old.GetSpec().GetCanary(); was.GetDigest() == digest {
			canary.Signatures = mergeSignatures(req.GetSignatures(), was.GetSignatures())
		}
		plugin.Spec.Digest, plugin.Spec.Signatures, plugin.Spec.Canary = old.GetSpec().GetDigest(), old.GetSpec().GetSignatures(), canary
		if old == nil {
			plugin.Spec.Digest = digest // it is refused in other words
			plugin.Spec.Canary = nil
		}
	}
	return plugin
}

// mergeSignatures is what is given, and those by other keys.
func mergeSignatures(given, old []*weirv1.PluginSignature) []*weirv1.PluginSignature {
	all := slices.Clone(given)
	for _, s := range old {
		if !slices.ContainsFunc(given, func(g *weirv1.PluginSignature) bool { return g.GetKey() == s.GetKey() }) {
			all = append(all, s)
		}
	}
	return all
}

// mergeLimits is what is given, and for the rest what was.
func mergeLimits(given, old *weirv1.PluginLimits) *weirv1.PluginLimits {
	if given == nil || old == nil {
		return cmp.Or(given, old)
	}
	return &weirv1.PluginLimits{
		MemoryBytes: cmp.Or(given.GetMemoryBytes(), old.GetMemoryBytes()),
		Fuel:        cmp.Or(given.GetFuel(), old.GetFuel()),
	}
}

// pushField is the request's name for a field of the plugin.
func pushField(field string) string {
	switch field {
	case "metadata.name":
		return "name"
	case "metadata.tenant":
		return "tenant"
	case "spec.canary.percent":
		return "canary_percent"
	}
	return field
}

// storeBlob sends content through the log in parts, unless it is there.
func (s *service) storeBlob(ctx context.Context, digest string, content []byte) error {
	select {
	case s.pushing <- struct{}{}:
		defer func() { <-s.pushing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, there := s.Store.View().BlobSize(digest); there {
		return nil
	}
	for offset := 0; offset < len(content); offset += chunkBytes {
		chunk := &weirv1.PutBlobChunk{Digest: digest, Size: uint64(len(content)), Offset: uint64(offset),
			Chunk: content[offset:min(offset+chunkBytes, len(content))]}
		if _, err := s.propose(ctx, &weirv1.Command{Action: &weirv1.Command_PutBlobChunk{PutBlobChunk: chunk}}); err != nil {
			return fmt.Errorf("store module at byte %d: %w", offset, err)
		}
	}
	return nil
}

// fillStatus writes the status of resources that callers put: theirs does not
// count. A Plugin's says what its module is, and what was in force before it.
func (s *service) fillStatus(ctx context.Context, tx *weirv1.Transact, index func(resource.Ref) resource.Path) error {
	for _, r := range tx.GetPuts() {
		resource.ClearStatus(r)
		if plugin := r.GetPlugin(); plugin != nil {
			if err := s.fillPlugin(ctx, plugin, tx, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillPlugin judges what is new in a Plugin, and writes its status.
func (s *service) fillPlugin(ctx context.Context, plugin *weirv1.Plugin, tx *weirv1.Transact, index func(resource.Ref) resource.Path) error {
	ref := resource.Of(resource.Wrap(plugin))
	refuse := func(field, message string) error {
		return refusal(&Refused{Violations: []Violation{{Ref: ref, Field: field, Reason: ReasonInvalid, Message: message}}}, index)
	}
	if len(plugin.GetSpec().GetModule()) > 0 {
		return refuse("spec.module", "is for files; call PushModule, and leave it out here")
	}
	old := s.storedPlugin(ref)
	if field, err := s.checkTrust(plugin, old, s.trustOf(ref.Tenant, tx)); err != nil {
		return refuse(field, "is refused: "+err.Error())
	}
	limited := !proto.Equal(old.GetSpec().GetLimits(), plugin.GetSpec().GetLimits())
	if old.GetSpec().GetDigest() == plugin.GetSpec().GetDigest() && !limited {
		plugin.Status = proto.CloneOf(old.GetStatus())
	} else {
		status, err := s.admitStored(ctx, plugin, plugin.GetSpec().GetDigest(), refuse)
		if err != nil {
			return err
		}
		plugin.Status = status
	}
	if canary := plugin.GetSpec().GetCanary(); canary != nil && (limited || canary.GetDigest() != old.GetSpec().GetCanary().GetDigest()) {
		if _, err := s.admitStored(ctx, plugin, canary.GetDigest(), refuse); err != nil {
			return err
		}
	}
	if old.GetStatus().GetTrial().GetState() == weirv1.PluginTrial_RUNNING && plugin.GetMetadata().GetRevision() == 0 {
		plugin.Metadata.Revision = old.GetMetadata().GetRevision() // lest it undo that the canary is aborted meanwhile
	}
	advance(plugin, old, Actor(ctx), time.Now())
	return nil
}

// admitStored judges a module that is stored already, under other limits or
// another name. One that is not stored is the store's to refuse.
func (s *service) admitStored(ctx context.Context, plugin *weirv1.Plugin, digest string, refuse func(field, message string) error) (*weirv1.PluginStatus, error) {
	module, err := s.Store.Blob(digest)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if module == nil {
		return nil, nil
	}
	status, err := s.Admission.Admit(ctx, plugin.GetMetadata().GetName(), module, plugin.GetSpec().GetLimits())
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, refuse("spec", err.Error())
	}
	return status, nil
}
