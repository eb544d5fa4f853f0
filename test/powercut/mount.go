//go:build linux

package powercut

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const maxWrite = 128 << 10

// source is what our mounts say that they are of: this process.
func source() string { return fmt.Sprintf("powercut:%d:%s", os.Getpid(), startTime(os.Getpid())) }

// newMount mounts the disk and starts to serve it. The kernel's device is
// opened here rather than by the library so that no child inherits it: a mount
// whose server was killed must fail, not wait for a child.
func newMount(d *Disk) (*mount, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	how := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, typeDir, maxWrite)
	if err := unix.Mount(source(), d.dir, "fuse.powercut", unix.MS_NOSUID|unix.MS_NODEV, how); err != nil {
		unix.Close(fd)
		return nil, err
	}
	m := &mount{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		disk:          d,
		nodes:         map[uint64]*known{fuse.FUSE_ROOT_ID: {inode: d.volume.root}},
		listings:      map[uint64][]fuse.DirEntry{},
		served:        make(chan struct{}),
		off:           make(chan struct{}),
	}
	server, err := fuse.NewServer(m, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		MaxWrite:      maxWrite,
		DisableXAttrs: true,
		// The kernel sees every change, so it need not guess from times that its cache is stale.
		ExplicitDataCacheControl: true,
		DisableReadDirPlus:       true,
		Logger:                   log.New(io.Discard, "", 0), // it reports answers that a cut made void
	})
	if err != nil {
		return nil, errors.Join(err, unix.Unmount(d.dir, unix.MNT_FORCE|unix.MNT_DETACH))
	}
	go func() { defer close(m.served); server.Serve() }()
	if err := refusePolling(d.dir); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// refusePolling makes the kernel ask whether files can be polled, and be told
// no for ever. Otherwise it would ask when this process opens a file, while the
// runtime holds the processor that the answer needs. The library knows the name.
func refusePolling(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open new mount: %w", err)
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

// close aborts what waits for the mount, takes it away even if it is in use,
// and waits for its goroutines.
func (m *mount) close() error {
	err := unix.Unmount(m.disk.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if err != nil {
		return fmt.Errorf("unmount disk: %w", err)
	}
	<-m.served
	return nil
}

// sweep unmounts the disks of processes that are gone: a killed test leaves
// its mount, on which every call fails.
func sweep() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var failed []error
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) { // the upper before the lower
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 2 {
			continue
		}
		var pid int
		var since string
		n, _ := fmt.Sscanf(strings.ReplaceAll(what[1], ":", " "), "powercut %d %s", &pid, &since)
		if n == 2 && startTime(pid) != since {
			failed = append(failed, unix.Unmount(unescape(where[4]), unix.MNT_DETACH))
		}
	}
	return errors.Join(failed...)
}

// startTime tells a process from a later one with its number; empty if there
// is none.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, afterName, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')'):]), " ")
	const startTimeField = 22 - 3
	if fields := strings.Fields(afterName); len(fields) > startTimeField {
		return fields[startTimeField]
	}
	return ""
}

// unescape undoes what mountinfo does to white space in paths.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
