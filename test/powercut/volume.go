//go:build linux

package powercut

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

const (
	typeMask = syscall.S_IFMT
	typeFile = syscall.S_IFREG
	typeDir  = syscall.S_IFDIR
	typeLink = syscall.S_IFLNK
)

// A volume is the tree of inodes in both its states, and the changes of names
// that lead from the safe state to the current one. It does no locking.
type volume struct {
	root    *inode
	journal bool // see Options.Journal
	count   uint64
	pending []change // oldest first
}

// A change is what one call did to names. It is made safe, or survives, as a
// whole; only after the earlier changes of the same names.
type change struct {
	names []name
	apply func() // to the safe state
}

type name struct {
	dir   *inode
	entry string
}

func newVolume(journal bool) *volume {
	v := &volume{journal: journal}
	v.root = v.inode(typeDir|0o755, 0, 0)
	return v
}

func (v *volume) inode(mode, uid, gid uint32) *inode {
	v.count++ // the first, the root, is 1, as FUSE has it
	n := &inode{number: v.count, now: attrs{mode: mode, uid: uid, gid: gid, modified: time.Now()}, changed: map[int]bool{}}
	if mode&typeMask == typeDir {
		n.entries, n.safeEntries = map[string]*inode{}, map[string]*inode{}
	}
	n.safe = n.now
	return n
}

// add gives an inode a name that is free.
func (v *volume) add(dir *inode, entry string, n *inode) syscall.Errno {
	if dir.entries[entry] != nil {
		return syscall.EEXIST
	}
	v.set(dir, entry, n)
	v.pending = append(v.pending, change{[]name{{dir, entry}}, func() { dir.safeEntries[entry] = n }})
	return 0
}

// remove takes the name of a file, or of a directory that is empty.
func (v *volume) remove(dir *inode, entry string, wantDir bool) syscall.Errno {
	n := dir.entries[entry]
	switch {
	case n == nil:
		return syscall.ENOENT
	case wantDir && !n.isDir():
		return syscall.ENOTDIR
	case !wantDir && n.isDir():
		return syscall.EISDIR
	case len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	v.unset(dir, entry)
	v.pending = append(v.pending, change{[]name{{dir, entry}}, func() { delete(dir.safeEntries, entry) }})
	return 0
}

// rename moves a name, over another if there is one.
func (v *volume) rename(from, to name, mayReplace bool) syscall.Errno {
	n, old := from.dir.entries[from.entry], to.dir.entries[to.entry]
	switch {
	case n == nil:
		return syscall.ENOENT
	case old == n:
		return 0
	case old != nil && !mayReplace:
		return syscall.EEXIST
	case old != nil && old.isDir() && !n.isDir():
		return syscall.EISDIR
	case old != nil && !old.isDir() && n.isDir():
		return syscall.ENOTDIR
	case old != nil && len(old.entries) > 0:
		return syscall.ENOTEMPTY
	}
	v.unset(from.dir, from.entry)
	if old != nil {
		v.unset(to.dir, to.entry)
	}
	v.set(to.dir, to.entry, n)
	v.pending = append(v.pending, change{[]name{from, to}, func() {
		delete(from.dir.safeEntries, from.entry)
		to.dir.safeEntries[to.entry] = n
	}})
	return 0
}

func (v *volume) set(dir *inode, entry string, n *inode) {
	dir.entries[entry] = n
	n.links++
	dir.now.modified = time.Now()
}

func (v *volume) unset(dir *inode, entry string) {
	dir.entries[entry].links--
	delete(dir.entries, entry)
	dir.now.modified = time.Now()
}

// sync makes an inode safe: a file's content, a directory's names.
func (v *volume) sync(n *inode) {
	n.sync()
	if v.journal {
		v.settle(func(change) bool { return true })
	} else if n.isDir() {
		v.settle(func(c change) bool {
			return slices.ContainsFunc(c.names, func(of name) bool { return of.dir == n })
		})
	}
}

// settle makes the wanted changes safe, and the earlier ones that they need.
func (v *volume) settle(wanted func(change) bool) {
	take := make([]bool, len(v.pending))
	needed := map[name]bool{}
	for i, c := range slices.Backward(v.pending) {
		take[i] = wanted(c) || slices.ContainsFunc(c.names, func(of name) bool { return needed[of] })
		if take[i] {
			for _, of := range c.names {
				needed[of] = true
			}
		}
	}
	var left []change
	for i, c := range v.pending {
		if take[i] {
			c.apply()
		} else {
			left = append(left, c)
		}
	}
	v.pending = left
}

// crash makes both states what is found after a cut. What was not safe survives
// with a chance that is itself drawn, so that some cuts lose little and some all.
func (v *volume) crash(random *rand.Rand, loseAll bool) Report {
	var report Report
	chance := random.Float64()
	survives := func() bool { return !loseAll && random.Float64() < chance }

	lost := map[name]bool{}
	for i, c := range v.pending {
		after := slices.ContainsFunc(c.names, func(of name) bool { return lost[of] })
		if after || v.journal && report.LostNames > 0 || !survives() {
			for _, of := range v.pending[i].names {
				lost[of] = true
			}
			report.LostNames++
			continue
		}
		c.apply()
		report.KeptNames++
	}
	v.pending = nil
	v.root.links = 0
	seen := map[*inode]bool{}
	settleTree(v.root, survives, &report, seen)
	return report
}

// settleTree makes what can be reached from a directory be what is safe.
func settleTree(n *inode, survives func() bool, report *Report, seen map[*inode]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	n.links = 0
	n.crash(survives, report)
	if !n.isDir() {
		return
	}
	n.entries = maps.Clone(n.safeEntries)
	for _, entry := range slices.Sorted(maps.Keys(n.entries)) {
		child := n.entries[entry]
		settleTree(child, survives, report, seen)
		child.links++
	}
}
