// Package node assembles one process: a server, an edge, or both at once. It is
// the only package that knows all others, and all it does is introduce them.
//
//	server: lock ─▶ store ─▶ cluster ─▶ identity ─▶ node API ─▶ admin API
//	edge:   lock ─▶ identity (join) ─▶ proxy ─▶ node API's client
//	sidecar: as an edge, with the registration behind it
//	dev:    a server, an edge that joins it like any other, and the demo
//
// [Run] starts the parts in this order and stops them in reverse. The first
// part that fails stops the process. When everything serves it prints one line,
// "weir: ready".
//
// # On disk
//
// A server's data directory holds keyring (the key that seals what goes through
// the log; keep a copy of it apart from backups), identity, state, raft and
// admin.env. A proxy's holds keyring, identity, config.journal and blobs. That
// of `weir dev` holds one of each, in server and edge. Directories are 0700,
// files 0600, and lock keeps a second process out.
package node
