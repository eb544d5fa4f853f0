// Package router finds the rule that a request is served by: a compiled,
// immutable table of routes, and a pure match with the semantics and the
// precedence of the Gateway API's HTTPRoute v1.
//
//	Gateways, Routes ─With─▶ Table ─Match─▶ Hit{Rule, path, hostname, listener}
//
// A [Table] never changes. [Table.With] makes another one that shares what did
// not change, so one changed route among many thousands costs microseconds.
// What a rule is worth to the caller (backends, policies, …) is compiled by
// the caller, once, and carried as [Rule.Value].
//
// # Which listener
//
// Of the listeners on the request's port, the one with the most specific
// hostname that fits the request's host serves it: an exact hostname, then the
// longest wildcard, then none. Only routes attached to that listener are
// looked at; there is no second choice. A listener bound to an address of its
// own hears only what arrives at that address. Listeners of several gateways
// with the same port, address and hostname serve as one.
//
// A route is attached to a listener when one of its parentRefs names the
// gateway (of its own tenant) and, where given, the listener's name and port,
// and when its hostnames and the listener's have one in common. A route
// without hostnames takes the listener's.
//
// # Which rule
//
// A rule matches by any of its matches; none means every request. The winner
// among all matches that fit is the one with, in this order,
//
//  1. the most specific hostname of its route: exact, the longest wildcard, none;
//  2. an Exact path; then a RegularExpression, the longest pattern first; then
//     the longest PathPrefix, "/" being also what a match without a path has;
//  3. a method;
//  4. the most header matches;
//  5. the most query parameter matches;
//  6. the oldest route, by createTime;
//  7. the route first in the alphabet by "tenant/name";
//  8. the rule, and in it the match, that stands first.
//
// The Gateway API leaves the place of RegularExpression to us. It stands before
// prefixes, as in nginx: an expression says more than the prefix it begins with,
// and would never be reached behind it.
//
// Where no match under a more specific hostname fits, less specific ones are
// tried.
//
// # What is compared
//
// Hosts without regard to case, port and trailing dot. "*.example.com" fits
// every name below example.com, however deep, not example.com itself.
//
// Paths as the exchange has them, without the query, never decoded: whoever
// wants /a/../b to be /b resolves that before. A prefix is whole segments:
// /foo fits /foo, /foo/ and /foo/bar, not /foobar; trailing slashes of the
// prefix do not count.
//
// Headers by name without regard to case. Several fields of one name are one
// value, joined by ", " (RFC 9110, section 5.3). An absent header fits nothing,
// not even an expression for the empty value.
//
// Query parameters by name and value after percent-decoding, '+' being a
// space; a malformed escape stands for itself. Of several parameters of one
// name the first counts.
//
// # What carries no HTTP
//
// A connection to a listener that speaks TCP or TLS is matched as a request for
// the path "/" of the host that its client asks for by SNI, or of none. A route is
// attached to such a listener only by a parentRef that names it, or its port.
//
// # Expressions
//
// Regular expressions are RE2 and must fit the whole path or value. Where one
// match names a header or a parameter twice, the first counts.
package router

import (
	"iter"
	"net/netip"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/resource"
)

// Rule is one rule of a route and what the caller compiled it to.
type Rule[T any] struct {
	Route resource.Ref
	// Index is the rule's place in the route; Name is empty for most.
	Index int
	Name  string
	Value T
}

// PathKind says how a path was compared.
type PathKind uint8

// The kinds of path match.
const (
	Prefix PathKind = iota
	Exact
	Regex
)

// Listener is one listener of a gateway.
type Listener struct {
	Gateway resource.Ref
	Name    string
	Port    uint16
	// Address is what it is bound to; invalid: every address.
	Address  netip.Addr
	Protocol weirv1.Listener_Protocol
	// Hostname is in lower case, "" for none.
	Hostname string
}

// Hit is what a request was matched to.
type Hit[T any] struct {
	Rule *Rule[T]
	// Path is how the winning match compares paths, and Prefix, for that kind,
	// the prefix without trailing slashes: "" for "/".
	Path   PathKind
	Prefix string
	// Hostname is the route's hostname that fitted, "" when it has none.
	Hostname string
	Listener *Listener
}

// Table is a compiled set of routes. It is immutable and safe for concurrent
// use. The zero value is an empty table.
type Table[T any] struct {
	// gateways and routes are what was declared, by "tenant/name".
	gateways map[string]*weirv1.Gateway
	routes   index[*route[T]]

	// listeners are in order of precedence; sites find the group of a request,
	// a number into groups. Both change only when listeners do.
	listeners []placedListener
	sites     map[uint16]*site
	groups    []*group[T]
}

// Match finds the rule for the request of x that arrived at a listener's port.
// It allocates nothing.
func (t *Table[T]) Match(port uint16, x *exchange.Exchange) (Hit[T], bool) {
	var buf [maxHost]byte
	host := normalHost(&buf, x.Request.Authority)
	number, ok := t.sites[port].find(x.Local.Addr(), host)
	if !ok {
		return Hit[T]{}, false
	}
	r := newRequest(x)
	hosts := &t.groups[number].hosts
	if bucket, ok := hosts.exact.get(host); ok {
		if c := bucket.match(&r); c != nil {
			return c.hit(bucket), true
		}
	}
	for at := 0; hosts.wild.n > 0; {
		bucket, next := hosts.wildcard(host, at)
		if next < 0 {
			break
		}
		if c := bucket.match(&r); c != nil {
			return c.hit(bucket), true
		}
		at = next
	}
	if hosts.none != nil {
		if c := hosts.none.match(&r); c != nil {
			return c.hit(hosts.none), true
		}
	}
	return Hit[T]{}, false
}

// Names tells whether a route at a listener's port names the host of x, without a
// wildcard, whatever else it asks of a request.
func (t *Table[T]) Names(port uint16, x *exchange.Exchange) bool {
	var buf [maxHost]byte
	host := normalHost(&buf, x.Request.Authority)
	number, ok := t.sites[port].find(x.Local.Addr(), host)
	if ok {
		_, ok = t.groups[number].hosts.exact.get(host)
	}
	return ok
}

// Rules returns the rules of a route, nil for one that is not there.
func (t *Table[T]) Rules(ref resource.Ref) []*Rule[T] {
	if r, ok := t.routes.getString(key(ref.Tenant, ref.Name)); ok {
		return r.rules
	}
	return nil
}

// All yields every rule, in no order.
func (t *Table[T]) All() iter.Seq[*Rule[T]] {
	return func(yield func(*Rule[T]) bool) {
		for r := range t.routes.all() {
			for _, rule := range r.rules {
				if !yield(rule) {
					return
				}
			}
		}
	}
}

// Listeners yields the listeners of the table's gateways.
func (t *Table[T]) Listeners() iter.Seq[*Listener] {
	return func(yield func(*Listener) bool) {
		for i := range t.listeners {
			if !yield(t.listeners[i].Listener) {
				return
			}
		}
	}
}
