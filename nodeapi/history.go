package nodeapi

import "sync"

// How much of the past a scope keeps for those who are behind.
const (
	maxFrames     = 4096
	maxFrameBytes = 16 << 20
)

// position is a state of a scope.
type position struct {
	revision uint64
	digest   digest
}

// history is the newest changes of one scope, in order and without a gap.
// Streams walk it by number; one that is too slow finds its next number gone,
// and holds up nobody.
type history struct {
	mu     sync.Mutex
	origin position // before frames[0]
	first  uint64   // the number of frames[0]
	frames []*frame
	bytes  int
	wake   chan struct{} // closed at the next append
}

func newHistory(at position) *history {
	return &history{origin: at, wake: make(chan struct{})}
}

// end is the newest position.
func (h *history) end() position {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.endLocked()
}

func (h *history) endLocked() position {
	if len(h.frames) == 0 {
		return h.origin
	}
	return h.frames[len(h.frames)-1].to
}

func (h *history) append(f *frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, f)
	h.bytes += f.size
	for len(h.frames) > 1 && (len(h.frames) > maxFrames || h.bytes > maxFrameBytes) {
		h.origin = h.frames[0].to
		h.bytes -= h.frames[0].size
		h.frames[0] = nil // the slice's array outlives the cut
		h.frames = h.frames[1:]
		h.first++
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

// at returns the frame of a number; nil and a channel to wait on when it is yet
// to come; false when it is gone.
func (h *history) at(number uint64) (f *frame, wait <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case number < h.first:
		return nil, nil, false
	case number < h.first+uint64(len(h.frames)):
		return h.frames[number-h.first], nil, true
	}
	return nil, h.wake, true
}

// next is the number that the next frame will get, and the position before it.
func (h *history) next() (uint64, position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first + uint64(len(h.frames)), h.endLocked()
}

// find returns the number to go on from for a proxy at some position.
func (h *history) find(at position) (number uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The last position that is not after the proxy's. Its revision may lie
	// between two of ours, if another server told it of changes one by one that
	// came to us together.
	number, before := h.first, h.origin
	for _, f := range h.frames {
		if f.to.revision > at.revision {
			break
		}
		number, before = number+1, f.to
	}
	return number, before.revision <= at.revision && before.digest == at.digest
}
