// Package gatewayapi reads documents of the Kubernetes Gateway API, version v1:
// Gateway, HTTPRoute and GRPCRoute become a Gateway and Routes of Weir.
//
// Weir has the Gateway API's words, so a document is translated node by node:
// what means the same passes as it stands, with its place in the file, and is
// judged as any other declaration. What is said otherwise is rewritten. What
// Weir does not serve is refused by name, never dropped.
//
// # What is rewritten
//
//	metadata.namespace             the tenant
//	parentRefs, backendRefs        group and namespace must be Weir's own: they go
//	backendRefs[].port             goes: a Weir Service's endpoints have ports
//	certificateRefs of kind Secret a Certificate of that name
//	gatewayClassName               goes: who applies a document to Weir has chosen
//	GRPCRoute matches[].method     a path: /service/method
//
// A Service of Kubernetes with two ports is two Services of Weir, so a name that
// is used with different ports in one file is refused.
package gatewayapi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Group is what the apiVersion of these documents begins with.
const Group = "gateway.networking.k8s.io/"

const version = Group + "v1"

// Note is told of a problem and the field that has it.
type Note func(n *yaml.Node, field, message string)

// Spend counts a node that is rewritten, and says whether there may be more: one
// that is repeated by aliases is rewritten each time.
type Spend func(n *yaml.Node, field string) bool

// Reader translates the documents of one file.
type Reader struct {
	ports  map[string]port
	note   Note
	spend  Spend
	tenant string // of the document, "" when it does not say
}

// port is what a service was first named with.
type port struct {
	value string
	line  int
}

// NewReader returns a reader.
func NewReader() *Reader { return &Reader{ports: map[string]port{}} }

// Translate returns the document as one of Weir's, nil for a kind that is none.
// n is left as it is.
func (r *Reader) Translate(n *yaml.Node, note Note, spend Spend) *yaml.Node {
	r.note, r.spend = note, spend
	kind := text(value(n, "kind"))
	document, ok := documents[kind]
	if !ok {
		at := value(n, "kind")
		if at == nil {
			at = n
		}
		why := unserved[kind]
		if why == "" {
			why = fmt.Sprintf("%q of the Gateway API is not read: Gateway, HTTPRoute and GRPCRoute are", kind)
		}
		r.note(at, "kind", why)
		return nil
	}
	if at := value(n, "apiVersion"); text(at) != version {
		r.note(at, "apiVersion", fmt.Sprintf("must be %q, not %q", version, text(at)))
	}
	r.tenant = text(value(value(n, "metadata"), "namespace"))
	return r.mapping("", n, document)
}

// unserved are other kinds, and what to do instead.
var unserved = map[string]string{
	"ReferenceGrant":   "a ReferenceGrant has nothing to grant: in Weir no reference leaves its tenant",
	"GatewayClass":     "a GatewayClass is not needed: the edges that run a Gateway are chosen by its spec.selector",
	"BackendTLSPolicy": "a BackendTLSPolicy is not read",
	"TCPRoute":         "a TCPRoute is not served",
	"TLSRoute":         "a TLSRoute is not served",
	"UDPRoute":         "a UDPRoute is not served",
	"ListenerSet":      "a ListenerSet is not read: put its listeners into the Gateway",
}

// shape says what becomes of the fields of a mapping. Fields that are not in it
// pass as they stand.
type shape map[string]field

// field is one of these.
type field struct {
	refuse string              // why it is not served
	name   string              // what it is called in Weir
	inner  shape               // of its value, or of each element of it
	make   func(edited) result // what becomes of it, if that is special
}

// edited is a field as it stands.
type edited struct {
	r     *Reader
	at    string
	value *yaml.Node
	in    *yaml.Node // the mapping that it stands in
}

// result is what becomes of a field; without a value it goes.
type result struct {
	name  string
	value *yaml.Node
}

// mapping rewrites a mapping by its shape.
func (r *Reader) mapping(at string, n *yaml.Node, s shape) *yaml.Node {
	n = target(n)
	if n.Kind != yaml.MappingNode || !r.spend(n, at) {
		return n // who reads it says what is wrong
	}
	out := *n
	out.Content = make([]*yaml.Node, 0, len(n.Content))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], target(n.Content[i+1])
		f, special := s[target(key).Value]
		if !special {
			out.Content = append(out.Content, key, n.Content[i+1])
			continue
		}
		name := target(key).Value
		path := join(at, name)
		got := result{name, n.Content[i+1]}
		switch {
		case f.refuse != "":
			r.note(key, path, f.refuse)
			continue
		case f.make != nil:
			got = f.make(edited{r, path, value, n})
		case f.inner != nil:
			got.value = r.inner(path, value, f.inner)
		case f.name != "":
			got.name = f.name
		}
		if got.value != nil {
			out.Content = append(out.Content, moved(key, got.name), got.value)
		}
	}
	return &out
}

// inner rewrites a mapping, or each of a list.
func (r *Reader) inner(at string, n *yaml.Node, s shape) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return r.mapping(at, n, s)
	}
	out := *n
	out.Content = make([]*yaml.Node, len(n.Content))
	for i, element := range n.Content {
		out.Content[i] = r.mapping(fmt.Sprintf("%s[%d]", at, i), element, s)
	}
	return &out
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// moved is a string at the place of a node.
func moved(n *yaml.Node, s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: n.Line, Column: n.Column}
}

func target(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// value is what stands under a key, nil when there is none.
func value(n *yaml.Node, key string) *yaml.Node {
	n = target(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return target(n.Content[i+1])
		}
	}
	return nil
}

// text is a scalar's, "" for anything else.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// become writes another value at the place of one.
func become(s string) func(edited) result {
	return func(e edited) result {
		name := e.at[strings.LastIndexByte(e.at, '.')+1:]
		return result{name, moved(e.value, s)}
	}
}

// only lets a field stand that has one of some values, and takes it out.
func only(message string, values ...string) field {
	return field{make: func(e edited) result {
		if !slices.Contains(values, text(e.value)) {
			e.r.note(e.value, e.at, fmt.Sprintf(message, text(e.value)))
		}
		return result{}
	}}
}

// ownTenant: a reference names no other namespace.
func ownTenant(e edited) result {
	if got := text(e.value); got != e.r.tenant {
		e.r.note(e.value, e.at, fmt.Sprintf("must be metadata.namespace, which is %q, not %q: in Weir no reference leaves its tenant", e.r.tenant, got))
	}
	return result{}
}

// servicePort goes, unless the same name was used with another one.
func servicePort(e edited) result {
	name, got := e.r.tenant+"/"+text(value(e.in, "name")), text(e.value)
	first, seen := e.r.ports[name]
	if !seen {
		e.r.ports[name] = port{got, e.value.Line}
	} else if first.value != got {
		e.r.note(e.value, e.at, fmt.Sprintf("%s of this Service is used here, and %s on line %d: in Weir the endpoints have ports, so each of the two is a Service of its own; give it a name of its own", got, first.value, first.line))
	}
	return result{}
}

// grpcMatch makes a path out of a service and a method.
func grpcMatch(e edited) result {
	at, service, method := e.value, text(value(e.value, "service")), text(value(e.value, "method"))
	for i := 0; at.Kind == yaml.MappingNode && i+1 < len(at.Content); i += 2 {
		if name := at.Content[i].Value; !slices.Contains([]string{"type", "service", "method"}, name) {
			e.r.note(at.Content[i], join(e.at, name), "unknown field; expected one of type, service, method")
		}
	}
	kind, path := "Exact", ""
	switch t := text(value(e.value, "type")); {
	case e.value.Kind != yaml.MappingNode || service == "" && method == "":
		e.r.note(e.value, e.at, "needs a service, a method, or both")
		return result{}
	case t == "RegularExpression":
		kind, path = t, "/"+expression(service)+"/"+expression(method)
	case t != "" && t != "Exact":
		e.r.note(value(e.value, "type"), join(e.at, "type"), fmt.Sprintf("unknown value %q; expected one of Exact, RegularExpression", t))
		return result{}
	case service != "" && !serviceName.MatchString(service):
		e.r.note(value(e.value, "service"), join(e.at, "service"), fmt.Sprintf("%q is not the name of a service, such as shop.v1.Orders", service))
		return result{}
	case method != "" && !methodName.MatchString(method):
		e.r.note(value(e.value, "method"), join(e.at, "method"), fmt.Sprintf("%q is not the name of a method, such as Place", method))
		return result{}
	case method == "":
		kind, path = "PathPrefix", "/"+service
	case service == "":
		kind, path = "RegularExpression", "/[^/]+/"+regexp.QuoteMeta(method)
	default:
		path = "/" + service + "/" + method
	}
	out := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: at.Line, Column: at.Column}
	out.Content = []*yaml.Node{moved(at, "type"), moved(at, kind), moved(at, "value"), moved(at, path)}
	return result{"path", out}
}

// What the Gateway API takes for names where they are matched exactly.
var (
	serviceName = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	methodName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
)

func expression(s string) string {
	if s == "" {
		return "[^/]+"
	}
	return "(?:" + s + ")"
}
