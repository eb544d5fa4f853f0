package node

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// clusterKeys are what the cluster seals and signs with, as the admin API sees
// them.
type clusterKeys struct{ s *server }

var _ admin.Keys = clusterKeys{}

func (k clusterKeys) List(ctx context.Context) (*weirv1.ClusterKeys, error) {
	states, err := k.s.keys.List(ctx)
	if err != nil {
		return nil, outcome(err)
	}
	m := new(weirv1.ClusterKeys)
	for _, state := range states {
		if state.State == identity.KeyDropped {
			continue
		}
		key := &weirv1.ClusterKey{Id: state.ID, State: keyStates[state.State], Missing: state.Lacking}
		if !state.Created.IsZero() {
			key.CreateTime = timestamppb.New(state.Created)
		}
		if state.State == identity.KeySeals {
			m.Keys = append([]*weirv1.ClusterKey{key}, m.Keys...)
		} else {
			m.Keys = append(m.Keys, key)
		}
		if state.State == identity.KeyNext {
			m.Rotations = append(m.Rotations, keyRotation(states, state))
		}
	}
	rotation, err := k.s.registrar.Rotation(ctx)
	if err != nil {
		return nil, outcome(err)
	}
	m.Roots = rootsOf(rotation)
	if rotation.Phase != identity.PhaseSteady {
		m.Rotations = append(m.Rotations, rootRotation(rotation))
	}
	return m, nil
}

var keyStates = map[identity.KeyPhase]weirv1.ClusterKey_State{
	identity.KeyNext: weirv1.ClusterKey_SPREADING, identity.KeySeals: weirv1.ClusterKey_SEALING, identity.KeyOpens: weirv1.ClusterKey_OPENING,
}

func keyRotation(states []identity.KeyState, next identity.KeyState) *weirv1.Rotation {
	r := &weirv1.Rotation{What: weirv1.Rotation_KEY, To: next.ID, Step: "the members take it into their keyrings",
		Done: uint32(len(next.Held)), Total: uint32(len(next.Held) + len(next.Lacking)), WaitingFor: next.Lacking}
	if !next.Created.IsZero() {
		r.BeginTime = timestamppb.New(next.Created)
	}
	for _, state := range states {
		if state.State == identity.KeySeals {
			r.From = state.ID
		}
	}
	return r
}

// rootsOf: the root that signs comes first; another one is the next as long as
// it is announced, and the one before afterwards.
func rootsOf(rotation identity.RotationState) (roots []*weirv1.Root) {
	for i, root := range rotation.Roots {
		m := &weirv1.Root{Fingerprint: root.Fingerprint, NotBefore: timestamppb.New(root.NotBefore), NotAfter: timestamppb.New(root.NotAfter),
			State: weirv1.Root_TRUSTED}
		switch {
		case i == 0:
			m.State = weirv1.Root_SIGNING
		case rotation.Phase == identity.PhaseAnnounced:
			m.State = weirv1.Root_SPREADING
		}
		roots = append(roots, m)
	}
	return roots
}

func rootRotation(rotation identity.RotationState) *weirv1.Rotation {
	r := &weirv1.Rotation{What: weirv1.Rotation_ROOT, BeginTime: timestamppb.New(rotation.Since), Total: uint32(rotation.Nodes),
		Done: uint32(rotation.Nodes - len(rotation.Waiting)), WaitingFor: rotation.Waiting}
	from, to := 0, 1
	r.Step = "nodes learn to trust the new root"
	if rotation.Phase == identity.PhaseSigning {
		from, to = 1, 0
		r.Step = "nodes get certificates of the new root"
	}
	if len(rotation.Roots) > 1 {
		r.From, r.To = rotation.Roots[from].Fingerprint, rotation.Roots[to].Fingerprint
	}
	return r
}

func (k clusterKeys) RotateKey(ctx context.Context) (*weirv1.Rotation, error) {
	if _, err := k.s.keys.Rotate(ctx, admin.Actor(ctx)); err != nil {
		return nil, keysOutcome(err)
	}
	return k.rotation(ctx, weirv1.Rotation_KEY)
}

func (k clusterKeys) RotateRoot(ctx context.Context) (*weirv1.Rotation, error) {
	if err := k.s.registrar.RotateRoot(ctx); err != nil {
		return nil, keysOutcome(err)
	}
	return k.rotation(ctx, weirv1.Rotation_ROOT)
}

func (k clusterKeys) rotation(ctx context.Context, what weirv1.Rotation_What) (*weirv1.Rotation, error) {
	keys, err := k.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range keys.GetRotations() {
		if r.GetWhat() == what {
			return r, nil
		}
	}
	return &weirv1.Rotation{What: what, Step: "done"}, nil // it was quick
}

func (k clusterKeys) Drop(ctx context.Context, id string) error {
	return keysOutcome(k.s.keys.Drop(ctx, id))
}

// keysOutcome is outcome, for what is refused in identity's own words.
func keysOutcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, identity.ErrNeeded), errors.Is(err, identity.ErrReadOnly),
		errors.Is(err, identity.ErrRotating), errors.Is(err, identity.ErrRotatingKey):
		return refused(admin.ReasonState, "%v", err)
	case errors.Is(err, identity.ErrNoKey):
		return refused(admin.ReasonNotFound, "%v", err)
	}
	return outcome(err)
}
