package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Phase is how far a rotation of the root has come.
//
//	STEADY ──rotate──▶ ANNOUNCED ──all know the new root──▶ SIGNING ──all are signed by it──▶ STEADY
//
// ANNOUNCED: the old root signs, both are trusted. SIGNING: the new root signs,
// both are trusted, and the old root's key is no more. Each step waits until
// every node was given new credentials since the last one, or until those that
// were not have nothing left that is valid.
type Phase string

// The phases.
const (
	PhaseSteady    Phase = "STEADY"
	PhaseAnnounced Phase = "ANNOUNCED"
	PhaseSigning   Phase = "SIGNING"
)

const (
	// settled is when nobody has a certificate any more that is older than a step.
	settled = LeafLifetime + clockSkew
	// rotateAhead is how long before its root runs out a cluster rotates by itself.
	rotateAhead = rootLifetime / 10
	// maxBridges bounds what is sent along in each handshake. A node that was off
	// for as many rotations must join again.
	maxBridges = 16
)

// ErrRotating is the cause when a rotation is asked for while one is under way.
var ErrRotating = errors.New("a rotation of the root is under way")

// announce begins a rotation: a new root, and a bridge to it from the old one.
func (a *Authority) announce(now time.Time) (*Authority, error) {
	if a.phase != PhaseSteady {
		return nil, fmt.Errorf("%w, in phase %s since %s", ErrRotating, a.phase, a.since.Format(time.RFC3339))
	}
	next, err := newRoot(a.trustDomain)
	if err != nil {
		return nil, fmt.Errorf("create root: %w", err)
	}
	bridge, err := a.signer.bridgeTo(next.cert)
	if err != nil {
		return nil, fmt.Errorf("sign new root by the old one: %w", err)
	}
	b := a.step(PhaseAnnounced, now)
	b.next = next
	b.bridges = slices.Insert(b.bridges, 0, bridge)
	return b, nil
}

// bridgeTo signs another root's key: who knows only r can verify what that root
// signs.
func (r *root) bridgeTo(next *x509.Certificate) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		RawSubject:            next.RawSubject,
		SubjectKeyId:          next.SubjectKeyId,
		NotBefore:             next.NotBefore,
		NotAfter:              r.cert.NotAfter,
		URIs:                  next.URIs,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              next.KeyUsage,
	}
	return sign(template, r.cert, next.PublicKey, r.key)
}

// advance takes the next step, or returns a itself when it is not yet time for
// it: reached tells whether every node has been given credentials of an epoch.
func (a *Authority) advance(now time.Time, reached func(epoch uint64) bool) *Authority {
	due := func() bool { return !now.Before(a.since.Add(settled)) || reached(a.epoch) }
	switch {
	case a.phase == PhaseAnnounced && due():
		b := a.step(PhaseSigning, now)
		// With it goes the old root's key.
		b.signer, b.previous, b.next = a.next, a.signer.cert, nil
		return b
	case a.phase == PhaseSigning && due():
		b := a.step(PhaseSteady, now)
		b.previous = nil
		b.former = append(b.former, formerRoot{cert: a.previous, retired: b.since})
		return b
	}
	return a
}

// step copies a into its next epoch, without what has run out.
func (a *Authority) step(phase Phase, now time.Time) *Authority {
	b := *a
	b.epoch, b.phase, b.since = a.epoch+1, phase, now.UTC()
	b.bridges = slices.DeleteFunc(slices.Clone(a.bridges), func(c *x509.Certificate) bool { return now.After(c.NotAfter) })
	b.former = slices.DeleteFunc(slices.Clone(a.former), func(f formerRoot) bool { return now.After(f.cert.NotAfter) })
	return &b
}

// path is what leads to the root that signs for those who know only an earlier
// one: bridges, and for those who know but the fingerprint in a token, the
// roots themselves for as long as there may be such a token.
func (a *Authority) path(now time.Time) [][]byte {
	var path [][]byte
	for _, c := range a.bridges[:min(len(a.bridges), maxBridges)] {
		path = append(path, c.Raw)
	}
	for _, f := range a.former[max(len(a.former)-maxBridges, 0):] {
		if now.Before(f.retired.Add(MaxJoinTTL)) {
			path = append(path, f.cert.Raw)
		}
	}
	return path
}

// RotationState is how far a rotation of the root has come.
type RotationState struct {
	Phase Phase
	// Since is when the phase began, Until when it ends at the latest; zero when
	// no rotation is under way.
	Since, Until time.Time
	// Roots are those that are trusted, the one that signs first.
	Roots []RootState
	// Nodes is how many there are, Waiting those of them that were given no
	// credentials since the phase began.
	Nodes   int
	Waiting []string
}

// RootState is what may be told of a root.
type RootState struct {
	Fingerprint         string
	NotBefore, NotAfter time.Time
}

func (a *Authority) state() RotationState {
	s := RotationState{Phase: a.phase, Since: a.since}
	if a.phase != PhaseSteady {
		s.Until = a.since.Add(settled)
	}
	add := func(c *x509.Certificate) {
		s.Roots = append(s.Roots, RootState{Fingerprint: fingerprint(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter})
	}
	add(a.signer.cert)
	if a.next != nil {
		add(a.next.cert)
	}
	if a.previous != nil {
		add(a.previous)
	}
	return s
}
