//go:build linux

package hosts

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace and a thread that lives in it.
//
// The thread exists for the processes: a child's parent-death signal is tied
// to the thread that forked it, so children are started on a thread that stays
// until the namespace is closed. All else visits for a moment (inside).
type namespace struct {
	file    *os.File // keeps the namespace
	outside *os.File // where visitors return to
	work    chan func()
	left    chan struct{} // closed when the thread has gone
}

func newNamespace(outside *os.File) (*namespace, error) {
	n := &namespace{outside: outside, work: make(chan func()), left: make(chan struct{})}
	ready := make(chan error, 1)
	onThreadOfItsOwn(func() { n.live(ready) })
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

// live runs on a locked thread, which never unlocks: a thread that has been
// moved must not run anything else, so it ends with its goroutine.
func (n *namespace) live(ready chan<- error) {
	defer close(n.left)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("make network namespace: %w", err)
		return
	}
	file, err := openNamespace()
	n.file = file
	ready <- err
	if err != nil {
		return
	}
	for f := range n.work {
		f()
	}
}

// openNamespace opens the network namespace of the calling thread.
func openNamespace() (*os.File, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return file, nil
}

// run runs f on the thread that lives in the namespace.
func (n *namespace) run(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// inside runs f on the caller's goroutine, its thread moved into the namespace
// for as long. What f opens belongs to the namespace for ever; goroutines that
// f starts do not run inside.
func (n *namespace) inside(f func() error) (err error) {
	runtime.LockOSThread()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer func() {
		if back := unix.Setns(int(n.outside.Fd()), unix.CLONE_NEWNET); back != nil {
			// Still locked: the thread is lost with this goroutine rather than used astray.
			err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

func (n *namespace) close() {
	close(n.work)
	<-n.left
	n.file.Close()
}

// onThreadOfItsOwn runs f in a goroutine locked to a thread that is not the
// process's first: /proc/self speaks of that one, so it stays where it is.
func onThreadOfItsOwn(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		onThreadOfItsOwn(func() { close(locked); f() })
		<-locked // until the other has its thread, this one stays taken
		runtime.UnlockOSThread()
	}()
}
