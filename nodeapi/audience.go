package nodeapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// audience is what decides which scope a proxy has.
type audience struct {
	labels map[string]string
	kinds  []string // that it knows beyond those that all do
	// Whom a sidecar speaks for and what AccessRules name it by, as its certificate
	// says; of others empty.
	tenant, service, identity string
}

// audienceOf is that of who subscribes. What a sidecar says of itself decides nothing,
// but for which kinds it knows: all those of a service share a scope.
func audienceOf(id identity.ID, sub *weirv1.Subscribe) audience {
	of := audience{labels: sub.GetLabels(), kinds: kindsKnown(sub.GetKinds())}
	if id.Role == identity.RoleSidecar {
		of.labels, of.tenant, of.service, of.identity = nil, id.Tenant, id.Service, id.String()
	}
	return of
}

func (a audience) isSidecar() bool { return a.service != "" }

// key is the same for equal audiences.
func (a audience) key() string {
	var b strings.Builder
	if a.isSidecar() {
		b.WriteString(a.identity + "\n" + a.tenant + "/" + a.service + "\n")
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
