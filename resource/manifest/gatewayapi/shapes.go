package gatewayapi

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// documents are the kinds that are read.
var documents = map[string]shape{
	"Gateway":   document("Gateway", gatewaySpec),
	"HTTPRoute": document("Route", httpRouteSpec),
	"GRPCRoute": document("Route", grpcRouteSpec),
}

func document(kind string, spec shape) shape {
	return shape{
		"apiVersion": {make: become("weir/v1")},
		"kind":       {make: become(kind)},
		"metadata":   {inner: metadata},
		"spec":       {inner: spec},
		"status":     {refuse: written},
	}
}

const written = "is written by Kubernetes: leave it out"

var metadata = shape{
	"namespace":                  {name: "tenant"},
	"uid":                        {refuse: written},
	"resourceVersion":            {refuse: written},
	"generation":                 {refuse: written},
	"creationTimestamp":          {refuse: written},
	"deletionTimestamp":          {refuse: written},
	"deletionGracePeriodSeconds": {refuse: written},
	"managedFields":              {refuse: written},
	"ownerReferences":            {refuse: written},
	"finalizers":                 {refuse: written},
	"selfLink":                   {refuse: written},
	"generateName":               {refuse: "is not served: give a name"},
}

var httpRouteSpec = shape{
	"parentRefs":         {inner: parentRef},
	"useDefaultGateways": {refuse: "is not served: name the Gateways in parentRefs"},
	"rules":              {inner: httpRule},
}

var grpcRouteSpec = shape{
	"parentRefs":         {inner: parentRef},
	"useDefaultGateways": {refuse: "is not served: name the Gateways in parentRefs"},
	"rules":              {inner: grpcRule},
}

var parentRef = shape{
	"group":     only("must be gateway.networking.k8s.io, not %q", "gateway.networking.k8s.io"),
	"namespace": {make: ownTenant},
}

var httpRule = shape{
	"filters":            {inner: filter},
	"backendRefs":        {inner: backendRef},
	"timeouts":           {inner: shape{"idle": {refuse: "is no field of a HTTPRoute"}}},
	"sessionPersistence": {refuse: "is not served in a route: give the Service loadBalancing: {hash: {cookie: …}}"},
}

var grpcRule = shape{
	"matches":            {inner: shape{"method": {make: grpcMatch}, "path": {refuse: noCall}, "queryParams": {refuse: noCall}}},
	"filters":            {inner: grpcFilter},
	"backendRefs":        {inner: backendRef},
	"sessionPersistence": httpRule["sessionPersistence"],
	"timeouts":           {refuse: noCall},
	"retry":              {refuse: noCall},
}

const noCall = "is no field of a GRPCRoute"

var filter = shape{
	"type":          {make: filterType},
	"requestMirror": {inner: shape{"backendRef": {inner: backendRef}}},
	"extensionRef":  {refuse: "is not served: attach a Policy to the Route"},
	"externalAuth":  {refuse: "is not served: attach a Policy to the Route"},
}

var grpcFilter = shape{
	"type":            {make: grpcFilterType},
	"requestMirror":   filter["requestMirror"],
	"extensionRef":    filter["extensionRef"],
	"externalAuth":    {refuse: noCall},
	"urlRewrite":      {refuse: noCall},
	"requestRedirect": {refuse: noCall},
	"cors":            {refuse: noCall},
}

func filterType(e edited) result {
	return typeWithout(e, map[string]string{"ExtensionRef": "extensionRef", "ExternalAuth": "externalAuth"})
}

func grpcFilterType(e edited) result {
	return typeWithout(e, map[string]string{"ExtensionRef": "extensionRef", "ExternalAuth": "externalAuth",
		"URLRewrite": "urlRewrite", "RequestRedirect": "requestRedirect", "CORS": "cors"})
}

// typeWithout: the type goes where the field that it names is refused, which is
// told of already.
func typeWithout(e edited, refused map[string]string) result {
	if field := refused[text(e.value)]; field != "" && value(e.in, field) != nil {
		return result{}
	}
	return result{"type", e.value}
}

var backendRef = shape{
	"group":     only("must be empty, for a Service, not %q", ""),
	"namespace": {make: ownTenant},
	"port":      {make: servicePort},
	"filters":   {refuse: "is not served for one backend: put it into the rule, or give the backend a rule of its own"},
}

var gatewaySpec = shape{
	"gatewayClassName": {make: func(edited) result { return result{} }},
	"listeners":        {inner: listener},
	"addresses":        {refuse: "is not served: give the listeners of a Weir Gateway an address"},
	"infrastructure":   {refuse: "is not served: Weir's edges are run by you"},
	"allowedListeners": {refuse: "is not served"},
	"backendTLS":       {refuse: "is not served"},
	"defaultScope":     {refuse: "is not served: name the Gateway in the parentRefs of each Route"},
	"tls":              {refuse: "is not served for all listeners: a listener of a Weir Gateway has tls.clientValidation"},
}

var listener = shape{
	"tls":           {inner: listenerTLS},
	"allowedRoutes": {make: allowedRoutes},
}

var listenerTLS = shape{
	"certificateRefs":    {inner: certificateRef},
	"options":            {refuse: "is not served: a listener of a Weir Gateway has tls.profile and tls.minVersion"},
	"frontendValidation": {refuse: "is not served: a listener of a Weir Gateway has tls.clientValidation"},
}

var certificateRef = shape{
	"group":     only("must be empty, for a Secret, not %q", ""),
	"kind":      only("must be Secret, not %q: in Weir it is a Certificate of that name", "Secret", ""),
	"namespace": {make: ownTenant},
}

// allowedRoutes may say what holds in Weir anyway: routes of the Gateway's own
// tenant attach, of either kind.
func allowedRoutes(e edited) result {
	for i := 0; e.value.Kind == yaml.MappingNode && i+1 < len(e.value.Content); i += 2 {
		key := e.value.Content[i]
		if name := key.Value; name != "namespaces" && name != "kinds" {
			e.r.note(key, join(e.at, name), "unknown field; expected one of namespaces, kinds")
		}
	}
	namespaces := value(e.value, "namespaces")
	if from := value(namespaces, "from"); from != nil && text(from) != "Same" {
		e.r.note(from, join(e.at, "namespaces.from"), fmt.Sprintf("must be Same, not %q: in Weir a Route attaches to Gateways of its own tenant", text(from)))
	}
	if s := value(namespaces, "selector"); s != nil {
		e.r.note(s, join(e.at, "namespaces.selector"), "is not served: in Weir a Route attaches to Gateways of its own tenant")
	}
	if kinds := value(e.value, "kinds"); kinds != nil {
		var names []string
		for _, k := range kinds.Content {
			names = append(names, text(value(k, "kind")))
		}
		if !slices.Contains(names, "HTTPRoute") || !slices.Contains(names, "GRPCRoute") {
			e.r.note(kinds, join(e.at, "kinds"), "must hold HTTPRoute and GRPCRoute, or be left out: in Weir both are Routes")
		}
	}
	return result{}
}
