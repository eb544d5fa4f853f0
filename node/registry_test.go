package node

import (
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// When an Instance is taken to be gone: its sidecar is connected nowhere for a while,
// as seen by a server that has run for long enough to know.
func TestAbsences(t *testing.T) {
	instance := resource.Wrap(&weirv1.Instance{Metadata: &weirv1.Metadata{Name: "books-1", Tenant: "default"},
		Spec: &weirv1.InstanceSpec{Service: "books", Node: "books-1"}})
	here := &weirv1.ProxyStatus{Name: "books-1", Service: "default/books", Connected: true}
	left := &weirv1.ProxyStatus{Name: "books-1", Service: "default/books"}
	edge := &weirv1.ProxyStatus{Name: "books-1", Connected: true}
	type look struct {
		after  time.Duration
		status *weirv1.ProxyStatus
		gone   int
	}
	for name, c := range map[string]struct {
		age   time.Duration // of the server
		looks []look
	}{
		"it stays":                  {time.Hour, []look{{0, here, 0}, {time.Hour, here, 0}}},
		"it left":                   {time.Hour, []look{{0, left, 0}, {absence - 1, left, 0}, {1, left, 1}}},
		"it went to another server": {time.Hour, []look{{0, left, 0}, {absence - 1, here, 0}, {1, left, 0}, {absence - 1, left, 0}}},
		"it was never seen":         {time.Hour, []look{{0, nil, 0}, {absence, nil, 1}}},
		"an edge has its name":      {time.Hour, []look{{0, edge, 0}, {absence, edge, 1}}},
		"all servers were down":     {0, []look{{0, nil, 0}, {absence, nil, 0}, {settling - absence - 1, nil, 0}, {1, nil, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			var a absences
			now := time.Now()
			started := now.Add(-c.age)
			for i, l := range c.looks {
				now = now.Add(l.after)
				var proxies []*weirv1.ProxyStatus
				if l.status != nil {
					proxies = append(proxies, l.status)
				}
				if gone := a.gone([]*weirv1.Resource{instance}, proxies, started, now); len(gone) != l.gone {
					t.Errorf("look %d: gone are %v, want %d", i, gone, l.gone)
				}
			}
		})
	}
}
