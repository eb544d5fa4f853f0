// Package resource knows what every kind of declaration has in common: its
// name, its metadata, what it refers to, and whether it makes sense by itself.
//
// A resource travels as *weirv1.Resource, whose oneof holds the message of its
// kind. [Body] opens that envelope, [Wrap] closes it, and [Ref] is the identity
// (kind, tenant, name) under which stores, streams and errors speak of it.
//
// The package is pure: no I/O, no clock. [Validate] looks at one resource
// alone; whether what it refers to exists is the store's to say.
package resource

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// APIVersion is what every resource bears.
const APIVersion = "weir/v1"

// DefaultTenant owns what names no tenant.
const DefaultTenant = "default"

// The kinds, as they are written in YAML.
const (
	KindGateway      = "Gateway"
	KindCertificate  = "Certificate"
	KindService      = "Service"
	KindRoute        = "Route"
	KindPlugin       = "Plugin"
	KindPolicy       = "Policy"
	KindPluginTrust  = "PluginTrust"
	KindContract     = "Contract"
	KindApi          = "Api"
	KindApp          = "App"
	KindCredential   = "Credential"
	KindPlan         = "Plan"
	KindSubscription = "Subscription"
	KindInstance     = "Instance"
	KindAccessRule   = "AccessRule"
)

// NewerKinds are those that the first version did not have. Members and proxies of it
// cannot take them in.
var NewerKinds = []string{
	KindPluginTrust, KindApi, KindContract, KindApp, KindCredential, KindPlan, KindSubscription, KindInstance, KindAccessRule,
}

// Ref is the identity of a resource. It is comparable.
type Ref struct {
	Kind, Tenant, Name string
}

// String is "Kind tenant/name", without the tenant where it is the default.
func (r Ref) String() string {
	if r.Tenant == DefaultTenant || r.Tenant == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Tenant + "/" + r.Name
}

// Compare orders by kind, tenant, name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(strings.Compare(r.Kind, o.Kind), strings.Compare(r.Tenant, o.Tenant), strings.Compare(r.Name, o.Name))
}

// Proto is the Ref as a message.
func (r Ref) Proto() *weirv1.ResourceRef {
	return &weirv1.ResourceRef{Kind: r.Kind, Tenant: r.Tenant, Name: r.Name}
}

// RefOf reads a message; an empty tenant becomes the default one.
func RefOf(m *weirv1.ResourceRef) Ref {
	return Ref{Kind: m.GetKind(), Tenant: cmp.Or(m.GetTenant(), DefaultTenant), Name: m.GetName()}
}

// Message is the message of one kind: *weirv1.Gateway, *weirv1.Route, …
type Message interface {
	proto.Message
	GetApiVersion() string
	GetKind() string
	GetMetadata() *weirv1.Metadata
}

var kindFields = func() map[string]protoreflect.FieldDescriptor {
	byKind := map[string]protoreflect.FieldDescriptor{}
	fields := (*weirv1.Resource)(nil).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		byKind[string(fields.Get(i).Message().Name())] = fields.Get(i)
	}
	return byKind
}()

// Kinds lists every kind in the order of the vocabulary.
func Kinds() []string {
	fields := (*weirv1.Resource)(nil).ProtoReflect().Descriptor().Fields()
	kinds := make([]string, fields.Len())
	for i := range kinds {
		kinds[i] = string(fields.Get(i).Message().Name())
	}
	return kinds
}

// New returns an empty resource of a kind and the message inside it, or false
// for a kind that does not exist.
func New(kind string) (*weirv1.Resource, Message, bool) {
	field, ok := kindFields[kind]
	if !ok {
		return nil, nil, false
	}
	r := new(weirv1.Resource)
	body := r.ProtoReflect().Mutable(field).Message().Interface().(Message)
	return r, body, true
}

// Body returns the message inside the envelope, nil when it is empty.
func Body(r *weirv1.Resource) Message {
	switch k := r.GetKind().(type) {
	case *weirv1.Resource_Gateway:
		return k.Gateway
	case *weirv1.Resource_Service:
		return k.Service
	case *weirv1.Resource_Route:
		return k.Route
	case *weirv1.Resource_Plugin:
		return k.Plugin
	case *weirv1.Resource_Policy:
		return k.Policy
	case *weirv1.Resource_Certificate:
		return k.Certificate
	case *weirv1.Resource_PluginTrust:
		return k.PluginTrust
	case *weirv1.Resource_Contract:
		return k.Contract
	case *weirv1.Resource_Api:
		return k.Api
	case *weirv1.Resource_App:
		return k.App
	case *weirv1.Resource_Credential:
		return k.Credential
	case *weirv1.Resource_Plan:
		return k.Plan
	case *weirv1.Resource_Subscription:
		return k.Subscription
	case *weirv1.Resource_Instance:
		return k.Instance
	case *weirv1.Resource_AccessRule:
		return k.AccessRule
	}
	return nil
}

// Wrap puts a message into an envelope. It panics on a message that is of no
// kind: only the vocabulary's own messages are Messages.
func Wrap(m Message) *weirv1.Resource {
	name := string(m.ProtoReflect().Descriptor().Name())
	field, ok := kindFields[name]
	if !ok {
		panic(fmt.Sprintf("resource: %s is not a kind", name))
	}
	r := new(weirv1.Resource)
	r.ProtoReflect().Set(field, protoreflect.ValueOfMessage(m.ProtoReflect()))
	return r
}

// KindOf names the kind by what the envelope holds, "" when it is empty.
func KindOf(r *weirv1.Resource) string {
	body := Body(r)
	if body == nil {
		return ""
	}
	return string(body.ProtoReflect().Descriptor().Name())
}

// Of returns the identity of a resource; an empty tenant is the default one.
func Of(r *weirv1.Resource) Ref {
	body := Body(r)
	if body == nil {
		return Ref{}
	}
	meta := body.GetMetadata()
	return Ref{Kind: KindOf(r), Tenant: cmp.Or(meta.GetTenant(), DefaultTenant), Name: meta.GetName()}
}

// Meta returns the metadata of a resource, nil where it has none.
func Meta(r *weirv1.Resource) *weirv1.Metadata {
	if body := Body(r); body != nil {
		return body.GetMetadata()
	}
	return nil
}

// ClearStatus takes away what Weir says of a resource. Of some kinds it says nothing.
func ClearStatus(r *weirv1.Resource) {
	body := Body(r)
	if body == nil {
		return
	}
	m := body.ProtoReflect()
	if status := m.Descriptor().Fields().ByName("status"); status != nil {
		m.Clear(status)
	}
}
