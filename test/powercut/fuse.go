//go:build linux

package powercut

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forever is how long the kernel may believe what it was told: nobody but the
// kernel changes anything.
const forever = 1000 * time.Hour

// A mount is the disk between two cuts, as the kernel speaks to it. Files have
// no handles: all that is known of them is in their inodes.
type mount struct {
	fuse.RawFileSystem // answers what is not here with "no such call"

	disk   *Disk
	served chan struct{} // closed when the server has ended
	off    chan struct{} // closed, with disk.mu held, when the power goes

	// Guarded by disk.mu.
	nodes    map[uint64]*known
	listings map[uint64][]fuse.DirEntry // of directories that are open
	opened   uint64
}

// known is an inode that the kernel has been told of, until it forgets it.
type known struct {
	inode   *inode
	lookups uint64
}

// on runs f on an inode, unless the power is off.
func (m *mount) on(number uint64, f func(*inode) syscall.Errno) fuse.Status {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	select {
	case <-m.off:
		return fuse.EIO
	default:
	}
	node := m.nodes[number]
	if node == nil {
		return fuse.EIO
	}
	return fuse.Status(f(node.inode))
}

// tell hands an inode to the kernel under a name.
func (m *mount) tell(n *inode, out *fuse.EntryOut) {
	node := m.nodes[n.number]
	if node == nil {
		node = &known{inode: n}
		m.nodes[n.number] = node
	}
	node.lookups++
	out.NodeId = n.number
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	fill(&out.Attr, n)
}

func fill(out *fuse.Attr, n *inode) {
	out.Ino = n.number
	out.Mode = n.now.mode
	out.Size = uint64(n.now.size)
	out.Blocks = uint64(len(n.pages)) * pageSize / 512
	out.Blksize = pageSize
	out.Nlink = uint32(n.links)
	if n.isDir() {
		out.Nlink = 2
	}
	out.Owner = fuse.Owner{Uid: n.now.uid, Gid: n.now.gid}
	out.SetTimes(&n.now.modified, &n.now.modified, &n.now.modified)
}

func (m *mount) String() string { return "powercut" }

func (m *mount) Lookup(_ <-chan struct{}, in *fuse.InHeader, entry string, out *fuse.EntryOut) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		n := dir.entries[entry]
		if n == nil {
			return syscall.ENOENT
		}
		m.tell(n, out)
		return 0
	})
}

func (m *mount) Forget(number, lookups uint64) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	node := m.nodes[number]
	if node == nil || number == fuse.FUSE_ROOT_ID {
		return
	}
	node.lookups -= min(lookups, node.lookups)
	if node.lookups == 0 {
		delete(m.nodes, number)
	}
}

func (m *mount) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return m.on(in.NodeId, func(n *inode) syscall.Errno {
		out.SetTimeout(forever)
		fill(&out.Attr, n)
		return 0
	})
}

func (m *mount) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return m.on(in.NodeId, func(n *inode) syscall.Errno {
		if size, ok := in.GetSize(); ok {
			n.truncate(int64(size))
		}
		if mode, ok := in.GetMode(); ok {
			n.now.mode = n.now.mode&typeMask | mode
		}
		if uid, ok := in.GetUID(); ok {
			n.now.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.now.gid = gid
		}
		if modified, ok := in.GetMTime(); ok {
			n.now.modified = modified
		}
		out.SetTimeout(forever)
		fill(&out.Attr, n)
		return 0
	})
}

// make adds a new inode to a directory and tells the kernel.
func (m *mount) make(in *fuse.InHeader, entry string, mode uint32, out *fuse.EntryOut) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		n := m.disk.volume.inode(mode, in.Uid, in.Gid)
		if errno := m.disk.volume.add(dir, entry, n); errno != 0 {
			return errno
		}
		m.tell(n, out)
		return 0
	})
}

func (m *mount) Mknod(_ <-chan struct{}, in *fuse.MknodIn, entry string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&typeMask != typeFile {
		return fuse.EPERM // sockets and devices are not for disks that lose power
	}
	return m.make(&in.InHeader, entry, in.Mode, out)
}

func (m *mount) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, entry string, out *fuse.EntryOut) fuse.Status {
	return m.make(&in.InHeader, entry, typeDir|in.Mode&^typeMask, out)
}

func (m *mount) Create(_ <-chan struct{}, in *fuse.CreateIn, entry string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return m.make(&in.InHeader, entry, typeFile|in.Mode&^typeMask, &out.EntryOut)
}

func (m *mount) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, entry string, out *fuse.EntryOut) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		n := m.disk.volume.inode(typeLink|0o777, in.Uid, in.Gid)
		n.target = target
		n.now.size = int64(len(target))
		n.safe = n.now // it comes with its name
		if errno := m.disk.volume.add(dir, entry, n); errno != 0 {
			return errno
		}
		m.tell(n, out)
		return 0
	})
}

func (m *mount) Readlink(_ <-chan struct{}, in *fuse.InHeader) (target []byte, status fuse.Status) {
	status = m.on(in.NodeId, func(n *inode) syscall.Errno {
		target = []byte(n.target)
		return 0
	})
	return target, status
}

func (m *mount) Link(_ <-chan struct{}, in *fuse.LinkIn, entry string, out *fuse.EntryOut) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		node := m.nodes[in.Oldnodeid]
		if node == nil {
			return syscall.ENOENT
		}
		if errno := m.disk.volume.add(dir, entry, node.inode); errno != 0 {
			return errno
		}
		m.tell(node.inode, out)
		return 0
	})
}

func (m *mount) Unlink(_ <-chan struct{}, in *fuse.InHeader, entry string) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno { return m.disk.volume.remove(dir, entry, false) })
}

func (m *mount) Rmdir(_ <-chan struct{}, in *fuse.InHeader, entry string) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno { return m.disk.volume.remove(dir, entry, true) })
}

func (m *mount) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		target := m.nodes[in.Newdir]
		switch {
		case target == nil:
			return syscall.ENOENT
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return syscall.EINVAL
		}
		return m.disk.volume.rename(name{dir, from}, name{target.inode, to}, in.Flags&unix.RENAME_NOREPLACE == 0)
	})
}

func (m *mount) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return m.on(in.NodeId, func(n *inode) syscall.Errno {
		if in.Flags&syscall.O_TRUNC != 0 {
			n.truncate(0)
		}
		return 0
	})
}

func (m *mount) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (result fuse.ReadResult, status fuse.Status) {
	status = m.on(in.NodeId, func(n *inode) syscall.Errno {
		result = fuse.ReadResultData(n.read(buf, int64(in.Offset)))
		return 0
	})
	return result, status
}

func (m *mount) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	status := m.on(in.NodeId, func(n *inode) syscall.Errno {
		n.write(data, int64(in.Offset))
		return 0
	})
	return uint32(len(data)), status
}

// Fsync also stands for fdatasync, msync, and each write of a file opened with
// O_SYNC: the kernel turns them into it.
func (m *mount) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if wait := m.disk.options.SyncTime; wait > 0 {
		select {
		case <-time.After(wait):
		case <-m.off:
		}
	}
	return m.on(in.NodeId, func(n *inode) syscall.Errno {
		m.disk.volume.sync(n)
		return 0
	})
}

func (m *mount) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return m.Fsync(cancel, in)
}

func (m *mount) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return m.on(in.NodeId, func(n *inode) syscall.Errno {
		end := int64(in.Offset + in.Length)
		switch in.Mode {
		case 0:
			if end > n.now.size {
				n.truncate(end)
			}
		case unix.FALLOC_FL_KEEP_SIZE: // room is never short
		case unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE:
			n.zero(int64(in.Offset), min(end, n.now.size))
		default:
			return syscall.EOPNOTSUPP
		}
		return 0
	})
}

// OpenDir keeps the names as they are now, so that a listing which takes
// several reads neither repeats nor misses one.
func (m *mount) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return m.on(in.NodeId, func(dir *inode) syscall.Errno {
		entries := []fuse.DirEntry{{Name: ".", Mode: typeDir, Ino: dir.number}, {Name: "..", Mode: typeDir}}
		for _, entry := range slices.Sorted(maps.Keys(dir.entries)) {
			n := dir.entries[entry]
			entries = append(entries, fuse.DirEntry{Name: entry, Mode: n.now.mode, Ino: n.number})
		}
		m.opened++
		m.listings[m.opened] = entries
		out.Fh = m.opened
		return 0
	})
}

func (m *mount) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return m.on(in.NodeId, func(*inode) syscall.Errno {
		entries := m.listings[in.Fh]
		for _, entry := range entries[min(int(in.Offset), len(entries)):] {
			if !out.AddDirEntry(entry) {
				break
			}
		}
		return 0
	})
}

func (m *mount) ReleaseDir(in *fuse.ReleaseIn) {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	delete(m.listings, in.Fh)
}

// StatFs reports a large and empty disk.
func (m *mount) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks = 1 << 40 / pageSize
	*out = fuse.StatfsOut{Blocks: blocks, Bfree: blocks, Bavail: blocks, Files: 1 << 20, Ffree: 1 << 20, Bsize: pageSize, NameLen: 255, Frsize: pageSize}
	return fuse.OK
}
