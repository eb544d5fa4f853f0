package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

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
	admitted, err := s.admit(ctx, req.GetName(), req.GetModule(), plugin.GetSpec().GetLimits())
	if err != nil {
		return nil, err
	}
	plugin.Status = admitted
	if req.GetDryRun() {
		return &weirv1.PushPluginResponse{Plugin: plugin}, nil
	}
	if err := s.storeBlob(ctx, plugin.GetSpec().GetDigest(), req.GetModule()); err != nil {
		return nil, err
	}
	tx := &weirv1.Transact{Puts: []*weirv1.Resource{wrapped}}
	done, err := s.transact(ctx, tx, false, func(resource.Ref) resource.Path { return "plugin" })
	if err != nil {
		return nil, err
	}
	for _, result := range done.GetResults() {
		plugin = result.GetResource().GetPlugin()
	}
	return &weirv1.PushPluginResponse{Plugin: plugin, Revision: done.GetRevision()}, nil
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
	plugin := &weirv1.Plugin{
		Metadata: &weirv1.Metadata{Name: req.GetName(), Tenant: req.GetTenant(), Labels: req.GetLabels()},
		Spec:     &weirv1.PluginSpec{Digest: digestOf(req.GetModule()), Limits: req.GetLimits()},
	}
	resource.Normalize(resource.Wrap(plugin))
	stored, _ := s.Store.View().Get(resource.Of(resource.Wrap(plugin)))
	if old := stored.GetPlugin(); old != nil {
		// What is taken over must not undo what someone changes meanwhile.
		plugin.Metadata.Revision = old.GetMetadata().GetRevision()
		plugin.Metadata.Annotations = old.GetMetadata().GetAnnotations()
		if len(req.GetLabels()) == 0 {
			plugin.Metadata.Labels = old.GetMetadata().GetLabels()
		}
		plugin.Spec.Limits = mergeLimits(req.GetLimits(), old.GetSpec().GetLimits())
	}
	return plugin
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
// count. A Plugin's says what its module is.
func (s *service) fillStatus(ctx context.Context, puts []*weirv1.Resource, index func(resource.Ref) resource.Path) error {
	for _, r := range puts {
		body := resource.Body(r).ProtoReflect()
		body.Clear(body.Descriptor().Fields().ByName("status"))
		plugin := r.GetPlugin()
		if plugin == nil {
			continue
		}
		if len(plugin.GetSpec().GetModule()) > 0 {
			return refusal(&Refused{Violations: []Violation{{Ref: resource.Of(r), Field: "spec.module", Reason: ReasonInvalid,
				Message: "is for files; call PushModule, and leave it out here"}}}, index)
		}
		stored, _ := s.Store.View().Get(resource.Of(r))
		old := stored.GetPlugin()
		if old.GetSpec().GetDigest() == plugin.GetSpec().GetDigest() && proto.Equal(old.GetSpec().GetLimits(), plugin.GetSpec().GetLimits()) {
			plugin.Status = proto.CloneOf(old.GetStatus())
			continue
		}
		if err := s.admitStored(ctx, plugin, index); err != nil {
			return err
		}
	}
	return nil
}

// admitStored judges a module that is stored already, under other limits or
// another name. One that is not stored is the store's to refuse.
func (s *service) admitStored(ctx context.Context, plugin *weirv1.Plugin, index func(resource.Ref) resource.Path) error {
	module, err := s.Store.Blob(plugin.GetSpec().GetDigest())
	if err != nil {
		return fmt.Errorf("read module: %w", err)
	}
	if module == nil {
		return nil
	}
	status, err := s.Admission.Admit(ctx, plugin.GetMetadata().GetName(), module, plugin.GetSpec().GetLimits())
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ref := resource.Of(resource.Wrap(plugin))
		return refusal(&Refused{Violations: []Violation{{Ref: ref, Field: "spec", Reason: ReasonInvalid, Message: err.Error()}}}, index)
	}
	plugin.Status = status
	return nil
}
