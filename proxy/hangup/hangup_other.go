//go:build !linux

package hangup

import "net"

type queue struct{}

// New returns a watcher that watches nothing.
func New() (*Watcher, error) { return nil, nil }

// Close does nothing.
func (w *Watcher) Close() {}

// Watch reports that it cannot.
func (w *Watcher) Watch(uint64, net.Conn, Peer) bool { return false }
