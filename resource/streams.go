package resource

import (
	"fmt"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// IsStream: what a listener carries are bytes, not HTTP.
func IsStream(p weirv1.Listener_Protocol) bool {
	return p == weirv1.Listener_TCP || p == weirv1.Listener_TLS
}

// Use is what a route asks of the listeners that it is attached to. Each field is
// where the route asks for it first; empty: nowhere.
type Use struct {
	// HTTP is what only HTTP has, Stream what only bytes have, Hostnames what
	// needs a client that asks for a name.
	HTTP, Stream, Hostnames Path
}

// useOf finds what a route asks for.
func useOf(spec *weirv1.RouteSpec) (u Use) {
	if len(spec.GetHostnames()) > 0 {
		u.Hostnames = "spec.hostnames"
	}
	for i, rule := range spec.GetRules() {
		note := func(to *Path, field Path, is bool) {
			if is && *to == "" {
				*to = place{field: "spec.rules", i: i + 1}.path(field)
			}
		}
		note(&u.HTTP, "", i > 0) // there is nothing to choose a second one by
		note(&u.HTTP, "matches", len(rule.GetMatches()) > 0)
		note(&u.HTTP, "filters", len(rule.GetFilters()) > 0)
		note(&u.HTTP, "retry", rule.GetRetry() != nil)
		note(&u.HTTP, "timeouts.request", rule.GetTimeouts().GetRequest() != nil)
		note(&u.HTTP, "timeouts.backendRequest", rule.GetTimeouts().GetBackendRequest() != nil)
		note(&u.Stream, "timeouts.idle", rule.GetTimeouts().GetIdle() != nil)
	}
	return u
}

// misfit says which of the listeners that a reference names cannot serve a route
// of this use.
func (ref Reference) misfit(target *weirv1.Resource) (field Path, message string, is bool) {
	u := ref.Use
	carriesHTTP := false
	for _, l := range target.GetGateway().GetSpec().GetListeners() {
		stream := IsStream(l.GetProtocol())
		carriesHTTP = carriesHTTP || !stream
		if ref.Part == "" && ref.Port == 0 || ref.Part != "" && ref.Part != l.GetName() || ref.Port != 0 && ref.Port != l.GetPort() {
			continue
		}
		switch {
		case stream && u.HTTP != "":
			return u.HTTP, fmt.Sprintf("is for HTTP, and the listener %q of %s speaks %s", l.GetName(), ref.To, l.GetProtocol()), true
		case l.GetProtocol() == weirv1.Listener_TCP && u.Hostnames != "":
			return u.Hostnames, fmt.Sprintf("are for clients that ask for a name, and the listener %q of %s speaks TCP", l.GetName(), ref.To), true
		case !stream && u.Stream != "":
			return u.Stream, fmt.Sprintf("is for TCP and TLS, and the listener %q of %s speaks %s", l.GetName(), ref.To, l.GetProtocol()), true
		}
	}
	if ref.Part != "" || ref.Port != 0 {
		return "", "", false
	}
	switch {
	case !carriesHTTP && len(target.GetGateway().GetSpec().GetListeners()) > 0:
		return ref.Field(), fmt.Sprintf("%s has no listener that speaks HTTP: name the one that is meant by sectionName", ref.To), true
	case u.Stream != "":
		return u.Stream, fmt.Sprintf("is for TCP and TLS: name the listener of %s that is meant by sectionName", ref.To), true
	}
	return "", "", false
}
