package nodeapi

import (
	"errors"
	"fmt"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Update is a change of what a proxy must know. A snapshot replaces all that
// was known.
type Update struct {
	Snapshot bool
	Revision uint64
	Puts     []*weirv1.Resource
	Deletes  []resource.Ref
}

// held is what a proxy was sent, and how much of that it has accepted. One
// goroutine owns it.
type held struct {
	resources map[resource.Ref]*weirv1.Resource
	at        position

	// What was received and not yet accepted: these, or all of it.
	pending    map[resource.Ref]struct{}
	pendingAll bool

	accepted   uint64
	isAccepted bool // some revision was
	refused    uint64
	reason     string
}

func newHeld() *held {
	return &held{resources: map[resource.Ref]*weirv1.Resource{}, pending: map[resource.Ref]struct{}{}}
}

// errGap is the cause when a change does not fit what is held: the proxy asks
// for a snapshot.
var errGap = errors.New("it does not fit what is held here")

// receive takes a change in. After an error nothing that is held can be relied
// upon, and the position is such that a snapshot will be sent.
func (h *held) receive(c *received) error {
	if !c.snapshot && c.from > h.at.revision {
		h.lost()
		return fmt.Errorf("take in revision %d, which follows %d: %w", c.revision, c.from, errGap)
	}
	if c.snapshot {
		clear(h.resources)
		clear(h.pending)
		h.at.digest, h.pendingAll = digest{}, true
	}
	for _, ref := range c.deletes {
		h.replace(ref, nil)
	}
	for _, r := range c.puts {
		h.replace(resource.Of(r), r)
	}
	h.at.revision = c.revision
	if h.at.digest != c.digest {
		h.lost()
		return fmt.Errorf("take in revision %d: the digest differs: %w", c.revision, errGap)
	}
	return nil
}

func (h *held) lost() { h.at = position{} }

func (h *held) replace(ref resource.Ref, r *weirv1.Resource) {
	if old := h.resources[ref]; old != nil {
		h.at.digest.toggle(ref, revisionOf(old))
	}
	if r == nil {
		delete(h.resources, ref)
	} else {
		h.resources[ref] = r
		h.at.digest.toggle(ref, revisionOf(r))
	}
	if !h.pendingAll {
		h.pending[ref] = struct{}{}
	}
}

// settled tells whether everything that was received has been accepted.
func (h *held) settled() bool { return h.isAccepted && h.accepted == h.at.revision && !h.unsettled() }

func (h *held) unsettled() bool { return h.pendingAll || len(h.pending) > 0 }

// update is what leads from what was last accepted to what was last received.
func (h *held) update() Update {
	u := Update{Snapshot: h.pendingAll, Revision: h.at.revision}
	if h.pendingAll {
		for _, r := range h.resources {
			u.Puts = append(u.Puts, r)
		}
	}
	for ref := range h.pending {
		if r := h.resources[ref]; r != nil {
			u.Puts = append(u.Puts, r)
		} else {
			u.Deletes = append(u.Deletes, ref)
		}
	}
	sortResources(u.Puts)
	slices.SortFunc(u.Deletes, resource.Ref.Compare)
	return u
}

func (h *held) accept() {
	clear(h.pending)
	h.pendingAll = false
	h.accepted, h.isAccepted = h.at.revision, true
	h.refused, h.reason = 0, ""
}

func (h *held) refuse(reason string) {
	h.refused, h.reason = h.at.revision, truncate(reason, maxReason)
}
