// Package handover passes what a process has open (sockets that listen, a lock)
// to the process that follows it on the same machine, so that a program can be
// replaced by a newer one without closing its doors.
//
//	old: Start ─fork, exec─▶ new: Inherited, Listen… , Ready ─pipe─▶ old: Start returns
//
// # Promises
//
//   - A socket that is passed is open in both processes, and stays as it was in the
//     old one, whatever becomes of the new one. Connections that nobody has
//     accepted yet belong to either.
//   - Start returns nil once the new process has said that it is ready. Otherwise
//     the new process is no more, and the old one may go on.
//   - What the new process has not asked for by the time it is ready is closed.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// variable is where a process is told what was passed to it: the names of the
// descriptors from firstFile on, in JSON.
const variable = "WEIR_HANDOVER"

// Descriptors of the new process.
const (
	readyFile = 3 // the pipe
	firstFile = 4
)

// Program is what to start.
type Program struct {
	Path string   // absolute
	Args []string // the name first
}

// Socket is a descriptor in use, such as a net.Listener or an *os.File.
type Socket interface {
	SyscallConn() (syscall.RawConn, error)
}

// Start starts the next process, with the standard streams of this one, and
// passes it what is open. It returns once that process is ready, and the error
// says why it is not; ctx bounds the wait.
func Start(ctx context.Context, p Program, open map[string]Socket) (pid int, err error) {
	names := slices.Sorted(maps.Keys(open))
	files := []uintptr{0, 1, 2}
	// Duplicates by hand: (*os.File).Fd would make the sockets block, here too.
	defer func() {
		for _, fd := range files[min(3, len(files)):] {
			_ = unix.Close(int(fd))
		}
	}()
	ready, told, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	fd, err := duplicate(told)
	told.Close()
	if err != nil {
		return 0, err
	}
	files = append(files, uintptr(fd))
	for _, name := range names {
		fd, err := duplicate(open[name])
		if err != nil {
			return 0, fmt.Errorf("pass %s: %w", name, err)
		}
		files = append(files, uintptr(fd))
	}
	list, err := json.Marshal(names)
	if err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{Env: append(environment(), variable+"="+string(list)), Files: files})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.Path, err)
	}
	_ = unix.Close(fd) // or the pipe's end would not be seen
	files = slices.Delete(files, 3, 4)
	return pid, await(ctx, pid, ready)
}

// End ends a process that Start has started, and returns once it is no more.
func End(pid int) {
	process, err := os.FindProcess(pid)
	if err == nil {
		_ = process.Kill() // if there is one left
		_, _ = process.Wait()
	}
}

func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, variable+"=") })
}

func duplicate(s Socket) (fd int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, firstFile) })
	return fd, errors.Join(failed, err)
}

// errEnded is what is known of a process that ended before it was ready: it has
// said the rest itself.
var errEnded = errors.New("it ended before it was ready")

// await waits for the byte that says that the process is ready. A process that
// does not become ready is ended.
func await(ctx context.Context, pid int, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	n, err := ready.Read(make([]byte, 1))
	if n == 1 {
		return nil
	}
	End(pid)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return errEnded
	}
	return err
}
