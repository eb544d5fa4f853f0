// Package hangup notices peers that close their connections, or whose connections
// break, while nobody reads from them.
//
//	Watch(socket) ─▶ epoll ─▶ the Watcher's goroutine ─▶ Peer.HungUp
//
// A connection of HTTP/1.1 that waits for a service is read by nobody: what the
// client sends meanwhile belongs to its next request. To look into the socket again
// and again would cost system calls, to read it a goroutine for each. The kernel
// knows: asked once for a connection, it says when that ends, whatever is still to be
// read. Nothing is taken from the socket.
//
// # Promises
//
//   - A connection that is watched costs one system call when that begins, and
//     nothing until it ends.
//   - HungUp is called when the peer has closed its side, and again if the connection
//     breaks then; at once if that was so before.
//   - Where the system has no epoll, nobody is told anything.
package hangup

import "sync"

// Peer is told how its connection ends, by the watcher's goroutine, which must not
// be kept.
type Peer interface {
	// HungUp: the peer sends nothing more. broken: and takes nothing, either.
	HungUp(broken bool)
}

// Watcher watches connections. Make it with [New]; a nil one watches nothing.
type Watcher struct {
	queue queue
	done  sync.WaitGroup

	mu    sync.Mutex
	peers map[uint64]Peer
}

// Forget ends the watch of a connection, which is closed already: nobody is told of
// it any more, but for a call that is under way.
func (w *Watcher) Forget(id uint64) {
	if w == nil {
		return
	}
	w.mu.Lock()
	delete(w.peers, id)
	w.mu.Unlock()
}

func (w *Watcher) peer(id uint64) Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peers[id]
}

// Watched counts the connections that are watched.
func (w *Watcher) Watched() int {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.peers)
}
