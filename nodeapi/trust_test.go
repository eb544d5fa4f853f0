package nodeapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

func trust(key string) *weirv1.Resource {
	return resource.Wrap(&weirv1.PluginTrust{Metadata: &weirv1.Metadata{Name: resource.TheTrust},
		Spec: &weirv1.PluginTrustSpec{RequireSignatures: true, Keys: []*weirv1.PluginKey{{Name: key, PublicKey: key}}}})
}

// An edge of an earlier version, which does not know PluginTrust, is sent all the rest:
// what it would refuse as of an unknown kind never comes, and a trust that comes,
// changes or goes is no news to it. The servers have judged the modules.
func TestAnEdgeThatDoesNotKnowPluginTrust(t *testing.T) {
	earlier := slices.DeleteFunc(slices.Clone(resource.NewerKinds), func(kind string) bool { return kind == resource.KindPluginTrust })
	c := startCluster(t)
	c.source.put(gateway("public", nil), route("r", "public"), plugin("stamp", "d1"), attached("p", "stamp", onRoute("r")), trust("one"))
	streams := map[string]*receiver{}
	for name, kinds := range map[string][]string{"of today": resource.NewerKinds, "of an earlier version": earlier} {
		streams[name] = &receiver{t, subscribe(t, c, c.enrol(identity.RoleEdge, strings.ReplaceAll(name, " ", "-")), &weirv1.Subscribe{Kinds: kinds})}
	}
	all := []string{"Gateway public", "Plugin stamp", "Policy p", "Route r"}
	streams["of an earlier version"].require("at first", all...)
	streams["of today"].require("at first", append([]string{"Gateway public", "Plugin stamp", "PluginTrust default"}, all[2:]...)...)

	c.source.put(trust("two"))
	streams["of today"].require("another key", "PluginTrust default")
	c.source.put(plugin("stamp", "d2"))
	streams["of today"].require("another module", "Plugin stamp")
	streams["of an earlier version"].require("another module", "Plugin stamp")
}

// receiver reads what a proxy is sent.
type receiver struct {
	t      *testing.T
	stream weirv1connect.NodeServiceStreamConfigClientStream
}

// require is what the next change puts that is not empty.
func (r *receiver) require(what string, want ...string) {
	r.t.Helper()
	var got []string
	for len(got) == 0 {
		var change received
		for whole := false; !whole; {
			m, err := r.stream.Receive()
			if err != nil {
				r.t.Fatal(err)
			}
			if whole, err = change.add(m); err != nil {
				r.t.Fatal(err)
			}
		}
		for _, put := range change.puts {
			got = append(got, resource.Of(put).String())
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s: %s", what, diff)
	}
}
