package resource

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Bounds of one resource. They are far above what people write and far below
// what would hurt a log entry or a proxy.
const (
	MaxBytes    = 256 << 10
	MaxDepth    = 64 // of a policy's configuration
	maxList     = 1024
	maxEntries  = 64
	maxWeight   = 1_000_000
	maxAttempts = 16
	maxHedges   = 4
)

// Violation is one thing that is wrong with a resource.
type Violation struct {
	// Field is the path, such as spec.rules[0].matches[0].path.value.
	Field string
	// Message says what is wrong and what to write instead. It reads on from
	// the field's name: "must start with …".
	Message string
}

func (v Violation) String() string {
	if v.Field == "" {
		return v.Message
	}
	return v.Field + ": " + v.Message
}

// Validate returns all that is wrong with a normalised resource by itself. A
// resource without a violation is one that a proxy can compile, if what it
// refers to exists.
func Validate(r *weirv1.Resource) []Violation {
	c := new(check)
	body := Body(r)
	if body == nil {
		c.add("", "the resource is of no kind: set one of %s", english(Kinds()))
		return c.found
	}
	if size, most := proto.Size(r), maxBytes(r); size > most {
		c.add("", "is %d bytes long; a %s has at most %d", size, KindOf(r), most)
		return c.found
	}
	c.header(KindOf(r), body)
	c.enums("", body.ProtoReflect())
	switch k := r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		c.gateway(k.Gateway.GetSpec())
	case *weirv1.Resource_Certificate:
		c.certificate(k.Certificate.GetSpec())
	case *weirv1.Resource_Service:
		c.service(k.Service.GetSpec())
	case *weirv1.Resource_Route:
		c.route(k.Route.GetSpec())
	case *weirv1.Resource_Plugin:
		c.plugin(k.Plugin.GetSpec())
	case *weirv1.Resource_Policy:
		c.policy(k.Policy.GetSpec())
	case *weirv1.Resource_PluginTrust:
		c.pluginTrust(k.PluginTrust)
	case *weirv1.Resource_Contract:
		c.contract(k.Contract.GetSpec())
	case *weirv1.Resource_Api:
		c.api(k.Api.GetSpec())
	case *weirv1.Resource_App:
		c.app(k.App.GetSpec())
	case *weirv1.Resource_Credential:
		c.credential(k.Credential.GetSpec())
	case *weirv1.Resource_Plan:
		c.plan(k.Plan.GetSpec())
	case *weirv1.Resource_Subscription:
		c.subscription(k.Subscription.GetSpec())
	case *weirv1.Resource_Instance:
		c.instance(k.Instance.GetSpec())
	case *weirv1.Resource_AccessRule:
		c.accessRule(k.AccessRule.GetSpec())
	}
	return c.found
}

// check collects violations.
type check struct {
	found []Violation
}

func (c *check) add(at Path, format string, args ...any) {
	c.found = append(c.found, Violation{Field: string(at), Message: fmt.Sprintf(format, args...)})
}

// syntax notes what a function of syntax.go found, if anything.
func (c *check) syntax(at Path, problem string) {
	if problem != "" {
		c.found = append(c.found, Violation{Field: string(at), Message: problem})
	}
}

// optional notes a syntax problem of a value that may be left out.
func (c *check) optional(at Path, value string, syntax func(string) string) {
	if value != "" {
		c.syntax(at, syntax(value))
	}
}

// count bounds a list from above and, with least 1, from below.
func (c *check) count(at Path, n, least, most int, what string) {
	switch {
	case n < least:
		c.add(at, "needs at least one %s", what)
	case n > most:
		c.add(at, "has %d entries; the most is %d", n, most)
	}
}

// unique notes a value that an earlier element of the same list bears.
func (c *check) unique(seen map[string]bool, at Path, value, what string) {
	if value == "" {
		return
	}
	if seen[value] {
		c.add(at, "%s %q is there twice", what, value)
	}
	seen[value] = true
}

func (c *check) header(kind string, body Message) {
	if v := body.GetApiVersion(); v != "" && v != APIVersion {
		c.add("apiVersion", "must be %q, not %q", APIVersion, v)
	}
	if k := body.GetKind(); k != "" && k != kind {
		c.add("kind", "must be %q, as the resource is one, not %q", kind, k)
	}
	const annotations = Path("metadata.annotations")
	meta := body.GetMetadata()
	c.syntax("metadata.name", checkLabel(meta.GetName()))
	c.optional("metadata.tenant", meta.GetTenant(), checkLabel)
	c.labels("metadata.labels", meta.GetLabels())
	c.count(annotations, len(meta.GetAnnotations()), 0, maxEntries, "annotation")
	for _, key := range slices.Sorted(maps.Keys(meta.GetAnnotations())) {
		if problem := checkLabelKey(key); problem != "" {
			c.syntax(annotations.Key(key), problem)
		}
	}
}

func (c *check) labels(at Path, labels map[string]string) {
	c.count(at, len(labels), 0, maxEntries, "label")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		c.syntax(at.Key(key), checkLabelKey(key))
		c.syntax(at.Key(key), checkLabelValue(labels[key]))
	}
}

// duration: not negative. An unset one is fine.
func (c *check) duration(at Path, d *durationpb.Duration) {
	if d == nil {
		return
	}
	if err := d.CheckValid(); err != nil {
		c.add(at, "is not a duration such as \"5s\"")
	} else if d.AsDuration() < 0 {
		c.add(at, "must not be negative, not %s", d.AsDuration())
	}
}

// enums notes numbers that no name stands for; only a binary client of another
// version can send one, and a proxy would not know what it means.
func (c *check) enums(at Path, m protoreflect.Message) {
	for _, field := range enumerated(m.Descriptor()) {
		if !m.Has(field) {
			continue
		}
		at, value := at.Field(field.JSONName()), m.Get(field)
		switch {
		case field.Enum() != nil:
			if field.Enum().Values().ByNumber(value.Enum()) == nil {
				c.add(at, "has the value %d, which this version does not know", value.Enum())
			}
		case field.IsList():
			for i := range value.List().Len() {
				c.enums(at.Index(i), value.List().Get(i).Message())
			}
		default:
			c.enums(at, value.Message())
		}
	}
}
