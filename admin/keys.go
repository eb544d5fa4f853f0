package admin

import (
	"context"
	"errors"
	"fmt"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

var errNoKeys = fmt.Errorf("this server has no keys that can be told of or rotated: %w", errors.ErrUnsupported)

func (o operator) ListKeys(ctx context.Context, _ *weirv1.ListKeysRequest) (*weirv1.ListKeysResponse, error) {
	if o.Keys == nil {
		return nil, errNoKeys
	}
	keys, err := o.Keys.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return &weirv1.ListKeysResponse{Keys: keys}, nil
}

func (o operator) RotateKey(ctx context.Context, _ *weirv1.RotateKeyRequest) (*weirv1.RotateKeyResponse, error) {
	if o.Keys == nil {
		return nil, errNoKeys
	}
	rotation, err := o.rotate(ctx, "cluster key", o.Keys.RotateKey)
	return &weirv1.RotateKeyResponse{Rotation: rotation}, err
}

func (o operator) RotateRoot(ctx context.Context, _ *weirv1.RotateRootRequest) (*weirv1.RotateRootResponse, error) {
	if o.Keys == nil {
		return nil, errNoKeys
	}
	rotation, err := o.rotate(ctx, "root", o.Keys.RotateRoot)
	return &weirv1.RotateRootResponse{Rotation: rotation}, err
}

func (o operator) rotate(ctx context.Context, what string, begin func(context.Context) (*weirv1.Rotation, error)) (*weirv1.Rotation, error) {
	within, cancel := o.deciding(ctx)
	defer cancel()
	rotation, err := begin(within)
	if err != nil {
		return nil, fmt.Errorf("rotate %s: %w", what, undecided(ctx, err))
	}
	o.Logger.Info("rotation begun", "actor", Actor(ctx), "what", what, "from", rotation.GetFrom(), "to", rotation.GetTo())
	return rotation, nil
}

func (o operator) DropKey(ctx context.Context, req *weirv1.DropKeyRequest) (*weirv1.DropKeyResponse, error) {
	if o.Keys == nil {
		return nil, errNoKeys
	}
	if req.GetId() == "" {
		return nil, invalid("id", "is required: which key is to be forgotten?")
	}
	within, cancel := o.deciding(ctx)
	defer cancel()
	if err := o.Keys.Drop(within, req.GetId()); err != nil {
		return nil, fmt.Errorf("drop key %s: %w", req.GetId(), undecided(ctx, err))
	}
	o.Logger.Info("cluster key dropped", "actor", Actor(ctx), "key", req.GetId())
	return &weirv1.DropKeyResponse{}, nil
}
