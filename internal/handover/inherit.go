package handover

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Inheritance is what the process before has passed. A nil one is of a process
// that follows none: it opens all itself.
type Inheritance struct {
	mu    sync.Mutex
	ready *os.File
	files map[string]*os.File
}

// Inherited takes over what was passed to this process; nil: nothing was. It is
// called once, at the start.
func Inherited() (*Inheritance, error) {
	list, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil { // it is not for processes that this one starts
		return nil, err
	}
	var names []string
	if err := json.Unmarshal([]byte(list), &names); err != nil {
		return nil, fmt.Errorf("read %s: %w", variable, err)
	}
	i := &Inheritance{files: map[string]*os.File{}}
	take := func(fd int, name string) (*os.File, error) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("take over %s: %w", name, err)
		}
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), name), nil
	}
	var err error
	if i.ready, err = take(readyFile, "ready"); err != nil {
		return nil, err
	}
	for n, name := range names {
		if i.files[name], err = take(firstFile+n, name); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// File returns a descriptor by its name, which is the caller's from then on; nil:
// none was passed.
func (i *Inheritance) File(name string) *os.File {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	f := i.files[name]
	delete(i.files, name)
	return f
}

// SocketName is the name by which a socket is passed: that of the address that
// was asked for, whatever it turned out to be.
func SocketName(network, address string) string { return network + " " + address }

// Listen is net.Listen, but for an address whose socket was passed.
func (i *Inheritance) Listen(network, address string) (net.Listener, error) {
	f := i.File(SocketName(network, address))
	if f == nil {
		return net.Listen(network, address)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", address, err)
	}
	return l, nil
}

// Left are the names of what was passed and nobody has asked for so far.
func (i *Inheritance) Left() []string {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Sorted(maps.Keys(i.files))
}

// Ready tells the process before that this one does its work from now on, and
// closes what nobody has asked for.
func (i *Inheritance) Ready() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, f := range i.files {
		f.Close()
		delete(i.files, name)
	}
	if i.ready == nil {
		return nil
	}
	defer func() { i.ready.Close(); i.ready = nil }()
	if _, err := i.ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("tell the process before: %w", err)
	}
	return nil
}
