// Package declare says what to declare for an OpenAPI document: the Contract, the Api
// that it is of, the Route by which requests come, and the Service that they go to.
//
//	document ─▶ Resources ─▶ Contract  the document, whole
//	                      ├▶ Api       info.version, published, requests as it says
//	                      ├▶ Route     below the path of its server, by a Gateway
//	                      └▶ Service   the server: its host and port, by TLS where it is https
//
// # Promises
//
//   - What cannot be known is not guessed: a document that names no server, or several,
//     is refused with what to say about it. Each of several may be another stage.
//   - What is made is valid, or it is said why not.
package declare

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/weirmesh/weir/contract"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Options is what a document does not say, or not as it is wanted.
type Options struct {
	Tenant string
	// Name is that of all that is made. Empty: made of info.title.
	Name string
	// Gateway is by which requests come in, Hostnames are those that they are for; none:
	// all.
	Gateway   string
	Hostnames []string
	// Server is the URL that requests are sent to. Empty: the document's, if it has one.
	Server string
}

// Resources are what to declare for a document. The error is contract.Problems where
// the document is wrong.
func Resources(document []byte, o Options) ([]*weirv1.Resource, error) {
	compiled, err := contract.Compile(document)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		if o.Name = nameOf(compiled.Title); o.Name == "" {
			return nil, fmt.Errorf("info.title %q makes no name: give one", compiled.Title)
		}
	}
	to, err := serverOf(compiled.Servers, o.Server)
	if err != nil {
		return nil, err
	}
	meta := func() *weirv1.Metadata { return &weirv1.Metadata{Name: o.Name, Tenant: o.Tenant} }
	made := []*weirv1.Resource{
		resource.Wrap(&weirv1.Contract{Metadata: meta(), Spec: &weirv1.ContractSpec{Openapi: string(document)}}),
		resource.Wrap(&weirv1.Api{Metadata: meta(), Spec: &weirv1.ApiSpec{
			Version: compiled.Version, State: weirv1.ApiSpec_PUBLISHED, ContractRef: &weirv1.ContractRef{Name: o.Name},
			TargetRefs: []*weirv1.TargetRef{{Kind: resource.KindRoute, Name: o.Name}},
			Validation: &weirv1.ApiValidation{Request: weirv1.ApiValidation_ENFORCE, Response: weirv1.ApiValidation_REPORT},
		}}),
		resource.Wrap(&weirv1.Route{Metadata: meta(), Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: o.Gateway}}, Hostnames: o.Hostnames, Rules: []*weirv1.RouteRule{to.rule(o.Name)},
		}}),
		resource.Wrap(&weirv1.Service{Metadata: meta(), Spec: to.service()}),
	}
	return made, check(made)
}

// check says all that is wrong with what was made of a document.
func check(made []*weirv1.Resource) error {
	var wrong []error
	for _, r := range made {
		resource.Normalize(r)
		for _, v := range resource.Validate(r) {
			wrong = append(wrong, fmt.Errorf("%s: %s: %s", resource.Of(r), v.Field, v.Message))
		}
	}
	return errors.Join(wrong...)
}

// longestName is how long a name may be (RFC 1123).
const longestName = 63

// nameOf makes a name of a title: "The Book Shop" is the-book-shop.
func nameOf(title string) string {
	var words []string
	for word := range strings.FieldsFuncSeq(strings.ToLower(title), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		words = append(words, word)
	}
	name := strings.Join(words, "-")
	return strings.TrimRight(name[:min(len(name), longestName)], "-")
}

// server is where requests go.
type server struct {
	secure     bool
	host, port string
	base       string // the path that clients ask below: "", "/v1"
	path       string // the same at the server
}

// serverOf is what is wanted, or the only one that the document names.
func serverOf(declared []*url.URL, wanted string) (s server, err error) {
	if wanted == "" {
		return onlyServer(declared)
	}
	u, err := url.Parse(wanted)
	if err != nil || u.Host == "" {
		return s, fmt.Errorf("the server %q is no URL such as http://10.0.0.1:9001", wanted)
	}
	var bases []string
	for _, d := range declared {
		bases = append(bases, contract.Base(d))
	}
	slices.Sort(bases)
	switch bases = slices.Compact(bases); {
	case len(bases) == 0:
		bases = []string{""}
	case len(bases) > 1 && slices.Contains(bases, contract.Base(u)):
		bases = []string{contract.Base(u)}
	case len(bases) > 1:
		return s, fmt.Errorf("the document's servers have different paths (%s): give a URL with one of them", strings.Join(bases, ", "))
	}
	if s, err = newServer(u, bases[0]); err == nil && u.Path == "" {
		s.path = s.base
	}
	return s, err
}

func onlyServer(declared []*url.URL) (s server, err error) {
	var whole []*url.URL
	var texts []string
	for _, d := range declared {
		if d.Host != "" && !slices.Contains(texts, d.String()) {
			whole, texts = append(whole, d), append(texts, d.String())
		}
	}
	switch len(whole) {
	case 0:
		return s, errors.New("the document's servers name no host: say where requests go, with the server's URL")
	case 1:
		return newServer(whole[0], contract.Base(whole[0]))
	}
	return s, fmt.Errorf("the document has several servers, which may be different stages: choose one of %s", strings.Join(texts, ", "))
}

func newServer(u *url.URL, base string) (server, error) {
	s := server{secure: u.Scheme == "https", host: u.Hostname(), port: u.Port(), base: base, path: contract.Base(u)}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return s, fmt.Errorf("the server %s is neither http nor https", u)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return s, fmt.Errorf("the server %s has more than a host and a path, which requests could not keep", u.Redacted())
	case s.port == "" && s.secure:
		s.port = "443"
	case s.port == "":
		s.port = "80"
	}
	return s, nil
}

// rule sends what is below the base to the Service of a name, under the name and the
// path that the server goes by.
func (s server) rule(service string) *weirv1.RouteRule {
	r := &weirv1.RouteRule{
		Matches:     []*weirv1.RouteMatch{{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: orRoot(s.base)}}},
		BackendRefs: []*weirv1.BackendRef{{Name: service}},
	}
	rewrite := new(weirv1.UrlRewrite)
	if _, err := netip.ParseAddr(s.host); err != nil {
		rewrite.Hostname = s.host
	}
	if s.path != s.base {
		rewrite.Path = &weirv1.PathModifier{Type: weirv1.PathModifier_REPLACE_PREFIX_MATCH, ReplacePrefixMatch: orRoot(s.path)}
	}
	if rewrite.Hostname != "" || rewrite.Path != nil {
		r.Filters = []*weirv1.RouteFilter{{Type: weirv1.RouteFilter_URL_REWRITE, UrlRewrite: rewrite}}
	}
	return r
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func (s server) service() *weirv1.ServiceSpec {
	spec := &weirv1.ServiceSpec{Endpoints: []*weirv1.Endpoint{{Address: net.JoinHostPort(s.host, s.port)}}}
	if s.secure {
		spec.Tls = new(weirv1.UpstreamTLS)
	}
	return spec
}
