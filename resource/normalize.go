package resource

import (
	"cmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Normalize fills in what a declaration may leave out: apiVersion, kind, the
// tenant, and in a Route what the Gateway API infers. Two declarations that
// mean the same by these rules are equal afterwards.
func Normalize(r *weirv1.Resource) {
	switch k := r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		if m := k.Gateway; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindGateway, m.Metadata)
		}
	case *weirv1.Resource_Certificate:
		if m := k.Certificate; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindCertificate, m.Metadata)
		}
	case *weirv1.Resource_Service:
		if m := k.Service; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindService, m.Metadata)
		}
	case *weirv1.Resource_Route:
		if m := k.Route; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindRoute, m.Metadata)
			normalizeRoute(m.GetSpec())
		}
	case *weirv1.Resource_Plugin:
		if m := k.Plugin; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindPlugin, m.Metadata)
		}
	case *weirv1.Resource_Contract:
		if m := k.Contract; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindContract, m.Metadata)
		}
	case *weirv1.Resource_Api:
		if m := k.Api; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindApi, m.Metadata)
			for _, t := range m.GetSpec().GetTargetRefs() {
				t.Kind = cmp.Or(t.Kind, KindRoute)
			}
		}
	case *weirv1.Resource_App:
		if m := k.App; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindApp, m.Metadata)
		}
	case *weirv1.Resource_Credential:
		if m := k.Credential; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindCredential, m.Metadata)
		}
	case *weirv1.Resource_Plan:
		if m := k.Plan; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindPlan, m.Metadata)
		}
	case *weirv1.Resource_Subscription:
		if m := k.Subscription; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindSubscription, m.Metadata)
		}
	case *weirv1.Resource_Instance:
		if m := k.Instance; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindInstance, m.Metadata)
		}
	case *weirv1.Resource_AccessRule:
		if m := k.AccessRule; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindAccessRule, m.Metadata)
		}
	case *weirv1.Resource_Policy:
		if m := k.Policy; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindPolicy, m.Metadata)
		}
	case *weirv1.Resource_PluginTrust:
		if m := k.PluginTrust; m != nil {
			m.ApiVersion, m.Kind, m.Metadata = header(m.ApiVersion, m.Kind, KindPluginTrust, m.Metadata)
		}
	}
}

// header is what apiVersion, kind and metadata become. A wrong value stays,
// for Validate to refuse.
func header(version, kind, wantKind string, meta *weirv1.Metadata) (string, string, *weirv1.Metadata) {
	if version == "" {
		version = APIVersion
	}
	if kind == "" {
		kind = wantKind
	}
	if meta == nil {
		meta = new(weirv1.Metadata)
	}
	if meta.Tenant == "" {
		meta.Tenant = DefaultTenant
	}
	return version, kind, meta
}

func normalizeRoute(spec *weirv1.RouteSpec) {
	for _, rule := range spec.GetRules() {
		for _, match := range rule.GetMatches() {
			if path := match.GetPath(); path != nil && path.Value == "" && isPrefix(path) {
				path.Value = "/"
			}
		}
		for _, filter := range rule.GetFilters() {
			if set := filterTypes(filter); filter.GetType() == weirv1.RouteFilter_TYPE_UNSPECIFIED && len(set) == 1 {
				filter.Type = set[0]
			}
			normalizePathModifier(filter.GetRequestRedirect().GetPath())
			normalizePathModifier(filter.GetUrlRewrite().GetPath())
		}
	}
}

func normalizePathModifier(m *weirv1.PathModifier) {
	if m.GetType() != weirv1.PathModifier_TYPE_UNSPECIFIED {
		return
	}
	switch full, prefix := m.GetReplaceFullPath(), m.GetReplacePrefixMatch(); {
	case full != "" && prefix == "":
		m.Type = weirv1.PathModifier_REPLACE_FULL_PATH
	case full == "" && prefix != "":
		m.Type = weirv1.PathModifier_REPLACE_PREFIX_MATCH
	}
}

// filterTypes lists the types whose field is set in a filter.
func filterTypes(f *weirv1.RouteFilter) []weirv1.RouteFilter_Type {
	var set []weirv1.RouteFilter_Type
	if f.GetRequestHeaderModifier() != nil {
		set = append(set, weirv1.RouteFilter_REQUEST_HEADER_MODIFIER)
	}
	if f.GetResponseHeaderModifier() != nil {
		set = append(set, weirv1.RouteFilter_RESPONSE_HEADER_MODIFIER)
	}
	if f.GetRequestRedirect() != nil {
		set = append(set, weirv1.RouteFilter_REQUEST_REDIRECT)
	}
	if f.GetUrlRewrite() != nil {
		set = append(set, weirv1.RouteFilter_URL_REWRITE)
	}
	if f.GetCors() != nil {
		set = append(set, weirv1.RouteFilter_CORS)
	}
	if f.GetRequestMirror() != nil {
		set = append(set, weirv1.RouteFilter_REQUEST_MIRROR)
	}
	if f.GetCompression() != nil {
		set = append(set, weirv1.RouteFilter_COMPRESSION)
	}
	if f.GetFault() != nil {
		set = append(set, weirv1.RouteFilter_FAULT)
	}
	return set
}

// isPrefix: an absent path is the prefix "/".
func isPrefix(m *weirv1.PathMatch) bool {
	return m.GetType() == weirv1.PathMatch_PATH_PREFIX || m.GetType() == weirv1.PathMatch_TYPE_UNSPECIFIED
}
