// Package openapi makes declarations of an OpenAPI document: a Contract that holds
// it, the Api that it describes, the Route by which that is reached and the Service
// that answers.
//
// It is pure, and reads of the document what the declarations need alone: whether the
// document is right is for those to say who compile contracts.
package openapi

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Options are what the document does not say.
type Options struct {
	// Tenant owns what is made; empty: the default one.
	Tenant string
	// Name is what Api, Route and Service are called; empty: the document's title.
	Name string
	// Gateway is the Route's parent.
	Gateway string
	// Hostnames are the Route's; none: every host of the Gateway.
	Hostnames []string
	// Upstream is where the service is, "host:port", instead of at the document's
	// first server.
	Upstream string
	State    weirv1.ApiSpec_State
}

// Declarations are what a document becomes.
type Declarations struct {
	Contract *weirv1.Contract
	Api      *weirv1.Api
	Route    *weirv1.Route
	Service  *weirv1.Service
}

// Resources lists them, normalised, what is referred to first.
func (d *Declarations) Resources() []*weirv1.Resource {
	all := []*weirv1.Resource{resource.Wrap(d.Contract), resource.Wrap(d.Service), resource.Wrap(d.Route), resource.Wrap(d.Api)}
	for _, r := range all {
		resource.Normalize(r)
	}
	return all
}

// document is what is read of one.
type document struct {
	OpenAPI string `yaml:"openapi"`
	Info    struct {
		Title   string `yaml:"title"`
		Version string `yaml:"version"`
	} `yaml:"info"`
	Servers []server `yaml:"servers"`
}

type server struct {
	URL       string `yaml:"url"`
	Variables map[string]struct {
		Default string `yaml:"default"`
	} `yaml:"variables"`
}

// Declare makes declarations of a document. The errors say what to write.
func Declare(text string, o Options) (*Declarations, error) {
	var doc document
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	switch {
	case doc.OpenAPI == "":
		return nil, fmt.Errorf("it is no OpenAPI document: it has no member openapi")
	case doc.Info.Version == "":
		return nil, fmt.Errorf("info.version is missing: it is what the version of the Api is called")
	}
	name := cmp.Or(o.Name, label(doc.Info.Title))
	if name == "" {
		return nil, fmt.Errorf("info.title %q makes no name: give one", doc.Info.Title)
	}
	servers, err := parseServers(doc.Servers)
	if err != nil {
		return nil, err
	}
	service, host, err := serviceOf(servers, o.Upstream)
	if err != nil {
		return nil, err
	}
	meta := func(name string) *weirv1.Metadata {
		return &weirv1.Metadata{Name: name, Tenant: cmp.Or(o.Tenant, resource.DefaultTenant)}
	}
	contract := label(name + "-" + doc.Info.Version)
	return &Declarations{
		Contract: &weirv1.Contract{Metadata: meta(contract), Spec: &weirv1.ContractSpec{Openapi: text}},
		Api: &weirv1.Api{Metadata: meta(name), Spec: &weirv1.ApiSpec{
			Version: doc.Info.Version, State: o.State,
			ContractRef: &weirv1.ContractRef{Name: contract},
			TargetRefs:  []*weirv1.TargetRef{{Kind: resource.KindRoute, Name: name}},
			Validation:  &weirv1.ApiValidation{Request: weirv1.ApiValidation_ENFORCE, Response: weirv1.ApiValidation_REPORT},
		}},
		Route:   &weirv1.Route{Metadata: meta(name), Spec: routeOf(name, host, servers, o)},
		Service: &weirv1.Service{Metadata: meta(name), Spec: service},
	}, nil
}

func parseServers(list []server) (servers []*url.URL, err error) {
	for i, s := range list {
		text := s.URL
		for name, v := range s.Variables {
			text = strings.ReplaceAll(text, "{"+name+"}", v.Default)
		}
		u, err := url.Parse(text)
		if err != nil || strings.ContainsAny(text, "{}") {
			return nil, fmt.Errorf("servers[%d].url: %q is no URL", i, text)
		}
		servers = append(servers, u)
	}
	return servers, nil
}

// serviceOf makes the Service, and says which host it is to be called by; empty: by
// the one that clients call.
func serviceOf(servers []*url.URL, upstream string) (spec *weirv1.ServiceSpec, host string, err error) {
	if upstream != "" {
		return &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: upstream}}}, "", nil
	}
	for _, u := range servers {
		var port string
		switch u.Scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		}
		if port == "" || u.Hostname() == "" {
			continue
		}
		spec = &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port))}}}
		if u.Scheme == "https" {
			spec.Tls = &weirv1.UpstreamTLS{Hostname: u.Hostname()}
		}
		if net.ParseIP(u.Hostname()) == nil {
			host = u.Hostname()
		}
		return spec, host, nil
	}
	return nil, "", fmt.Errorf("no server of the document has an http or https URL with a host: say where the service is")
}

// routeOf leads what is below the paths of the servers to the service.
func routeOf(name, host string, servers []*url.URL, o Options) *weirv1.RouteSpec {
	rule := &weirv1.RouteRule{BackendRefs: []*weirv1.BackendRef{{Name: name}}}
	for _, base := range bases(servers) {
		rule.Matches = append(rule.Matches, &weirv1.RouteMatch{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: base}})
	}
	if host != "" && !slices.Contains(o.Hostnames, host) {
		rule.Filters = []*weirv1.RouteFilter{{Type: weirv1.RouteFilter_URL_REWRITE, UrlRewrite: &weirv1.UrlRewrite{Hostname: host}}}
	}
	return &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: o.Gateway}}, Hostnames: o.Hostnames, Rules: []*weirv1.RouteRule{rule},
	}
}

// bases are the paths of the servers, each once; a document without a server is at
// the root.
func bases(servers []*url.URL) []string {
	var all []string
	for _, u := range servers {
		base := "/" + strings.Trim(u.EscapedPath(), "/")
		if !slices.Contains(all, base) {
			all = append(all, base)
		}
	}
	if all == nil {
		return []string{"/"}
	}
	return all
}

var notOfLabels = regexp.MustCompile(`[^a-z0-9]+`)

// label is the name that a text makes; it may be none.
func label(text string) string {
	s := strings.Trim(notOfLabels.ReplaceAllString(strings.ToLower(text), "-"), "-")
	return strings.Trim(s[:min(len(s), 63)], "-")
}
