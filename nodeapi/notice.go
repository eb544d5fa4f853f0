package nodeapi

import (
	"bytes"
	"sync"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// notice is what all proxies are told beside the configuration. It is encoded once.
type notice struct {
	mu      sync.Mutex
	raw     []byte
	message *weirv1.StreamConfigResponse // nil: there is nothing to tell
	changed chan struct{}                // closed when that is no longer so; nil while nobody waits
}

func (n *notice) set(m *weirv1.StreamConfigResponse) {
	raw := marshal(m)
	n.mu.Lock()
	defer n.mu.Unlock()
	if bytes.Equal(raw, n.raw) {
		return
	}
	n.raw, n.message = raw, encoded(raw)
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

func (n *notice) get() (*weirv1.StreamConfigResponse, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.message, n.changed
}
