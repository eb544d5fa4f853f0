// Package identity says who a node is, and whom it may believe.
//
// A cluster has an authority of its own: an [Authority], whose root every node
// knows. A node makes a key that never leaves it, asks for a certificate with
// a join token once, and from then on renews with that same key:
//
//	join token ─▶ Join ─▶ Credentials ─▶ [Identity.Install] ─▶ [Identity.Maintain] ─▶ Renew …
//
// A node's name is in its certificate's URI, as SPIFFE writes it:
//
//	spiffe://<trust domain>/node/<role>/<name>
//
// A sidecar's is that of the service that it speaks for, and the certificate's
// subject tells the sidecars of one service apart:
//
//	spiffe://<trust domain>/ns/<tenant>/svc/<service>
//
// Which service that is stands in the join token; the sidecar does not say.
//
// # What is checked
//
// TLS is 1.3, mutual, and decides by the URI: [Verifier.Peer] accepts a chain
// that ends at one of the authority's roots and bears the cluster's own trust
// domain; what a role may do is the caller's question. A certificate request
// proves that its sender holds the key and says nothing else: the authority
// takes names from the token and the caller, never from the request. A node
// that was removed, or whose name another has taken, is refused by its record.
//
// # What is kept where
//
// The authority's key lives in the cluster's log, sealed by the [Keyring], a
// file beside the data and not in it: a stolen backup is no authority. Tokens
// are stored as hashes. A node's key, its certificate and the roots are files
// of its own data directory, mode 0600.
//
// # Several servers
//
// Each server runs a [Registrar] over the same [Records], and nothing else is
// shared. Every write is a compare-and-set, and every call reads what it goes
// by anew. [Registrar.Follow] takes the next step of whatever is under way: of a
// root's rotation (rotation.go), of the cluster key's ([Keys]); it does not
// matter which member is first. Servers that have no records yet know each
// other by the keyring ([Founding]) and agree on who they are ([Founders]); one
// that cannot reach a majority helps itself ([Revive]).
package identity
