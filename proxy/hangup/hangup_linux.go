package hangup

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// queue is an epoll instance that the runtime's own waits for, so that the
// goroutine takes no thread while it waits.
type queue struct {
	file *os.File
	raw  syscall.RawConn
}

// New starts a watcher; Close ends it.
func New() (*Watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch connections: %w", os.NewSyscallError("epoll_create1", err))
	}
	if err := unix.SetNonblock(fd, true); err != nil { // what os.NewFile goes by
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch connections: %w", err)
	}
	w := &Watcher{peers: map[uint64]Peer{}, queue: queue{file: os.NewFile(uintptr(fd), "epoll")}}
	if w.queue.raw, err = w.queue.file.SyscallConn(); err != nil {
		_ = w.queue.file.Close()
		return nil, fmt.Errorf("watch connections: %w", err)
	}
	w.done.Go(w.run)
	return w, nil
}

// Close ends the watcher: nobody is told anything after it has returned.
func (w *Watcher) Close() {
	if w != nil {
		_ = w.queue.file.Close()
		w.done.Wait()
	}
}

// Watch watches a socket until it is closed, and Forget must be called. The id is
// nobody else's. It reports whether it can.
func (w *Watcher) Watch(id uint64, socket net.Conn, p Peer) bool {
	s, ok := socket.(syscall.Conn)
	if w == nil || !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	w.mu.Lock()
	w.peers[id] = p // before the first event, and before the socket can be found closed
	w.mu.Unlock()
	on := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(uint32(id)), Pad: int32(uint32(id >> 32))}
	failed := raw.Control(func(fd uintptr) {
		if e := w.queue.raw.Control(func(ep uintptr) { err = unix.EpollCtl(int(ep), unix.EPOLL_CTL_ADD, int(fd), &on) }); e != nil {
			err = e
		}
	})
	if failed != nil || err != nil {
		w.Forget(id)
		return false
	}
	return true
}

// run tells peers until the watcher is closed.
func (w *Watcher) run() {
	events := make([]unix.EpollEvent, 128)
	_ = w.queue.raw.Read(func(ep uintptr) bool {
		for {
			n, err := unix.EpollWait(int(ep), events, 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false // until there is more
			}
			for _, e := range events[:n] {
				id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
				if p := w.peer(id); p != nil {
					p.HungUp(e.Events&unix.EPOLLERR != 0) // EPOLLHUP is there, too, where both sides have closed in good order
				}
			}
		}
	})
}
