package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/weirmesh/weir/cluster"
)

// addresses are where the servers are, for the proxies to be told. Members come,
// go and move rarely: to look every second is enough.
type addresses struct {
	cluster *cluster.Node

	mu      sync.Mutex
	list    []string
	changed chan struct{}
}

const lookForAddresses = time.Second

func newAddresses(node *cluster.Node) *addresses {
	a := &addresses{cluster: node, changed: make(chan struct{})}
	a.look()
	return a
}

func (a *addresses) now() ([]string, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.list, a.changed
}

func (a *addresses) look() {
	var list []string
	for _, m := range a.cluster.Members() {
		if m.Address != "" {
			list = append(list, m.Address)
		}
	}
	slices.Sort(list)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(list, a.list) {
		a.list = list
		close(a.changed)
		a.changed = make(chan struct{})
	}
}

func (a *addresses) run(ctx context.Context) error {
	ticker := time.NewTicker(lookForAddresses)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			a.look()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
