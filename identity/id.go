package identity

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a node does in the cluster.
type Role string

// The roles.
const (
	RoleServer  Role = "server"
	RoleEdge    Role = "edge"
	RoleSidecar Role = "sidecar"
)

// Valid tells whether the role is one of the three.
func (r Role) Valid() bool { return r == RoleServer || r == RoleEdge || r == RoleSidecar }

// ID is who a node is. It is comparable.
type ID struct {
	TrustDomain string
	Role        Role
	Name        string
	// Tenant and Service are a sidecar's alone: whom it speaks for.
	Tenant, Service string
}

// URI is the ID as a certificate bears it. That of a sidecar is its service's; its
// own name is the subject's.
func (id ID) URI() *url.URL {
	if id.Role == RoleSidecar {
		return ServiceURI(id.TrustDomain, id.Tenant, id.Service)
	}
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: "/node/" + string(id.Role) + "/" + id.Name}
}

// ServiceURI is the identity of a service, which all of its sidecars bear.
func ServiceURI(trustDomain, tenant, service string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/ns/" + tenant + "/svc/" + service}
}

// String is the ID as a URI.
func (id ID) String() string { return id.URI().String() }

// Validate says what is wrong with an ID.
func (id ID) Validate() error {
	switch {
	case !validHost(id.TrustDomain):
		return fmt.Errorf("trust domain %q is not a host name in lower case", id.TrustDomain)
	case !id.Role.Valid():
		return fmt.Errorf("role %q is none of server, edge, sidecar", id.Role)
	}
	if id.Role == RoleSidecar {
		if err := ValidService(id.Tenant, id.Service); err != nil {
			return err
		}
	}
	return ValidName(id.Name)
}

// ValidService says what is wrong with the names of a tenant and its service.
func ValidService(tenant, service string) error {
	for what, name := range map[string]string{"tenant": tenant, "service": service} {
		if !validLabel(name) {
			return fmt.Errorf("%s %q is not a DNS label: lower-case letters, digits and '-', at most 63", what, name)
		}
	}
	return nil
}

// ParseURI reads what [ID.URI] wrote, and nothing looser. The name of a sidecar,
// which is not in it, is given.
func ParseURI(u *url.URL, name string) (ID, error) {
	if u.Scheme != "spiffe" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return ID{}, fmt.Errorf("%q is not a SPIFFE identity", u)
	}
	parts := strings.Split(u.Path, "/")
	var id ID
	switch {
	case len(parts) == 4 && parts[0] == "" && parts[1] == "node" && Role(parts[2]) != RoleSidecar:
		id = ID{TrustDomain: u.Host, Role: Role(parts[2]), Name: parts[3]}
	case len(parts) == 5 && parts[0] == "" && parts[1] == "ns" && parts[3] == "svc":
		id = ID{TrustDomain: u.Host, Role: RoleSidecar, Name: name, Tenant: parts[2], Service: parts[4]}
	default:
		return ID{}, fmt.Errorf("%q does not name a node", u)
	}
	if err := id.Validate(); err != nil {
		return ID{}, fmt.Errorf("identity %q: %w", u, err)
	}
	return id, nil
}

// ValidName says what is wrong with a node's name: it is a DNS label, as the
// names of resources are.
func ValidName(name string) error {
	if !validLabel(name) {
		return fmt.Errorf("name %q is not a DNS label: lower-case letters, digits and '-', at most 63", name)
	}
	return nil
}

func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

func validHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

// errNoURI is what a certificate without exactly one URI gets.
var errNoURI = errors.New("certificate bears no single SPIFFE identity")
