// Package nodeapi is what servers and proxies say to each other: a node joins
// and renews its certificate, a proxy is sent what it must know and says what
// became of it, and fetches content by digest. It is weir.v1.NodeService on the
// port of package nodeport, and both of its sides live here.
//
//	Source ─▶ hub ─▶ graph ─▶ scope ─▶ history ─▶ stream … nodeport … Client ─▶ apply
//	                                      ◀─ ack, nack ─ Proxies
//
// # Scopes
//
// A proxy is sent what it needs: the Gateways whose selector its labels
// satisfy, the Certificates these show, the Routes with such a parent, the Services those refer to, the
// Policies attached to any of them, and the Plugins these use. Proxies with
// equal labels share one scope, and so do the sidecars of a service, who are sent what
// that service needs (sidecar.go). The hub follows the source once; it works out
// what a change means to each scope, encodes that once, and appends it to the
// scope's history, which the streams walk at their own pace. Every revision is
// in every history, if only as an empty change, so that each proxy answers for
// each revision.
//
// A history is bounded. A proxy that falls out of it, or comes back with a
// state that it does not know, gets a snapshot: encoded once, in parts, for all
// who need it. Nothing here waits for a proxy but that proxy's own stream.
//
// # Trust
//
// The digest of what a proxy holds travels with each change. A proxy that finds
// another one asks for a snapshot rather than serving what nobody declared.
//
// # Refusals
//
// A revision that a proxy refused is never sent to it again. The proxy keeps it
// in mind: what it hands to apply next is everything since the last revision
// that was accepted, so that a later change can mend an earlier one, and it
// tries again by itself, since what was wrong may have been the network.
//
// # Which server
//
// Any server will do. Each proxy has an order of its own among them, by its
// name, and keeps the servers' own list of where they are. When its server is
// gone it goes to the next after a moment that differs from proxy to proxy, and
// goes on where it was, by its revision. One that is silent delays it by a
// second, and one that is full sends it on. So does one that knows no leader; a
// proxy that has been sent on by all of them takes any, and looks around now and then.
//
// # Certificates
//
// A proxy renews its certificate at half of its life, at whichever server it is
// connected to. Where a rotation of the root waits for it, the server asks it, over
// the stream, to renew within a time that grows with the number of proxies. A server
// that was removed from the cluster sends its proxies away. Beside the configuration
// proxies are told the keys of other proxies that are none any more (notice.go).
//
// # On disk
//
// A proxy appends each accepted change to a sealed journal before it says so.
// It starts from there when no server answers.
package nodeapi
