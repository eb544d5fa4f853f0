package nodeapi

import (
	"maps"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// audience is what decides which scope a proxy has.
type audience struct {
	labels map[string]string
	kinds  []string // that it knows beyond those that all do
	// Whom a sidecar speaks for, as its certificate says; of others empty.
	tenant, service string
}

func (a audience) isSidecar() bool { return a.service != "" }

// key is the same for equal audiences.
func (a audience) key() string {
	var b strings.Builder
	if a.isSidecar() {
		b.WriteString(a.tenant + "/" + a.service + "\n")
	}
	for _, kind := range a.kinds {
		b.WriteString(kind + "\n")
	}
	for _, k := range slices.Sorted(maps.Keys(a.labels)) {
		// No key and no value of a label holds a line break.
		b.WriteString(k + "=" + a.labels[k] + "\n")
	}
	return b.String()
}

// sidecarWants is scope.wants where a sidecar's needs are others than an edge's: it
// has no Gateways, but all that its tenant's services may be called by, and the
// AccessRules of its own service.
func (s *scope) sidecarWants(n *node) (wanted, decided bool) {
	own := n.ref.Tenant == s.tenant
	switch n.ref.Kind {
	case resource.KindGateway:
		return false, true
	case resource.KindRoute:
		return own && slices.ContainsFunc(n.resource.GetRoute().GetSpec().GetParentRefs(), func(p *weirv1.ParentRef) bool {
			return p.GetKind() == resource.KindService
		}), true
	case resource.KindService:
		return own, true
	case resource.KindAccessRule:
		return own && slices.Contains(s.kinds, resource.KindAccessRule) && n.resource.GetAccessRule().GetSpec().GetService() == s.service, true
	}
	if !own { // whatever another tenant attaches
		return false, true
	}
	return false, false
}
