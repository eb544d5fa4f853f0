// Package nodeport is the one port that the nodes of a cluster speak on, and
// the way to it.
//
//	             ╭ UDP: QUIC ─────┬ h3 ─────╮
//	[Dialer] ─▶ [Port]            ├ raft/1 ─┼─▶ [Members]  streams between servers
//	             ╰ TCP: TLS 1.3 ──┼ raft/1 ─╯
//	                              ┴ h2, h3 ───▶ http.Handler  the node API
//
// UDP and TCP have the same number, and what is spoken on a connection is
// agreed by ALPN. QUIC is what everybody prefers; TCP is for networks that drop
// UDP, and a node that had to fall back returns when UDP works again.
//
// # Who may speak what
//
// A peer proves who it is by the certificate of package identity. The node API
// takes a peer without one, which can then do nothing but join, and one whose
// certificate has run out, which can then do nothing but renew: that is the
// handler's to hold. raft/1 is for servers with a certificate that is good
// today. A dialer believes servers of its own cluster alone. Sessions are never
// resumed, so there is no 0-RTT data that could be replayed.
//
// # Falling back, and returning
//
// A dialer starts with QUIC. TCP gets its chance when QUIC has failed, or when
// nothing at all has come back for a while: a server that is busy answers at
// least something. Who wins that race proves nothing; UDP counts as blocked only
// once QUIC has failed in silence where TCP had an answer. From then on TCP
// comes first, and UDP is tried beside it from time to time. A peer that answers
// neither is down, not blocked.
//
// # Bounds
//
// Handshakes, connections and streams are bounded. What is above a bound waits
// where it can (TCP in the kernel's queue, QUIC for a Retry) and is refused
// where it cannot. Every goroutine belongs to a Port, a Dialer or a Members,
// whose end waits for it.
package nodeport
