//go:build linux

package powercut

import (
	"maps"
	"slices"
	"time"
)

// pageSize is what survives or is lost as one.
const pageSize = 4096

// A page is never changed once it is safe: writes put a copy in its place. So
// both states of a file share the pages in which they agree.
type page [pageSize]byte

// An inode is a file, directory or symbolic link in both its states.
type inode struct {
	number    uint64
	now, safe attrs

	// A file's content. A page that is nil is full of zeroes. changed has every
	// page in which the two may differ.
	pages, safePages []*page
	changed          map[int]bool

	// A directory's names.
	entries, safeEntries map[string]*inode

	target string // of a symbolic link
	links  int    // names that it has now
}

type attrs struct {
	mode     uint32 // with the type
	uid, gid uint32
	size     int64
	modified time.Time
}

func (n *inode) isDir() bool { return n.entries != nil }

func (n *inode) read(buf []byte, offset int64) []byte {
	if offset >= n.now.size {
		return nil
	}
	buf = buf[:min(int64(len(buf)), n.now.size-offset)]
	for done := 0; done < len(buf); {
		i, within := split(offset + int64(done))
		part := buf[done:min(len(buf), done+pageSize-within)]
		if i < len(n.pages) && n.pages[i] != nil {
			copy(part, n.pages[i][within:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	return buf
}

func (n *inode) write(data []byte, offset int64) {
	for done := 0; done < len(data); {
		i, within := split(offset + int64(done))
		done += copy(n.writable(i)[within:], data[done:])
	}
	n.now.size = max(n.now.size, offset+int64(len(data)))
	n.now.modified = time.Now()
}

// zero writes zeroes between two offsets.
func (n *inode) zero(from, to int64) {
	for from < to {
		i, within := split(from)
		if i >= len(n.pages) {
			return
		}
		part := min(to-from, int64(pageSize-within))
		if n.pages[i] != nil {
			clear(n.writable(i)[within : within+int(part)])
		}
		from += part
	}
}

func (n *inode) truncate(size int64) {
	n.zero(size, min(n.now.size, roundUp(size)))
	for i := int(roundUp(size) / pageSize); i < len(n.pages); i++ {
		n.changed[i] = true
	}
	n.pages = n.pages[:min(len(n.pages), int(roundUp(size)/pageSize))]
	n.now.size, n.now.modified = size, time.Now()
}

// writable is page i, made the current state's own.
func (n *inode) writable(i int) *page {
	for len(n.pages) <= i {
		n.pages = append(n.pages, nil)
	}
	own := new(page)
	switch current := n.pages[i]; {
	case current == nil:
	case i < len(n.safePages) && current == n.safePages[i]:
		*own = *current
	default:
		own = current
	}
	n.pages[i], n.changed[i] = own, true
	return own
}

// sync makes the content and the attributes safe.
func (n *inode) sync() {
	for i := range n.changed {
		n.safePages = setPage(n.safePages, i, pageAt(n.pages, i))
	}
	n.safePages = n.safePages[:min(len(n.safePages), len(n.pages))]
	clear(n.changed)
	n.safe = n.now
}

// crash makes both states what is found after a cut.
func (n *inode) crash(survives func() bool, report *Report) {
	if n.now != n.safe {
		if !survives() {
			n.now = n.safe
			report.LostAttributes++
		}
		n.safe = n.now
	}
	for _, i := range slices.Sorted(maps.Keys(n.changed)) { // sorted: the same draws for the same seed
		if pageAt(n.pages, i) == pageAt(n.safePages, i) {
			continue
		}
		if survives() {
			n.safePages = setPage(n.safePages, i, pageAt(n.pages, i))
			report.KeptPages++
		} else {
			report.LostPages++
		}
	}
	clear(n.changed)
	n.pages = slices.Clone(n.safePages)
	if n.safe.mode&typeMask == typeFile {
		n.trim()
	}
}

// trim drops what lies behind the end of the file: a size may survive without
// its pages, and pages without their size.
func (n *inode) trim() {
	stamp := n.now.modified
	behind := n.now.size
	n.now.size = int64(len(n.pages)) * pageSize
	n.truncate(min(behind, n.now.size))
	n.now.size, n.now.modified = behind, stamp
	n.safePages = slices.Clone(n.pages)
	clear(n.changed)
}

func pageAt(pages []*page, i int) *page {
	if i < len(pages) {
		return pages[i]
	}
	return nil
}

func setPage(pages []*page, i int, p *page) []*page {
	for len(pages) <= i {
		pages = append(pages, nil)
	}
	pages[i] = p
	return pages
}

func split(offset int64) (index, within int) {
	return int(offset / pageSize), int(offset % pageSize)
}

func roundUp(size int64) int64 { return (size + pageSize - 1) / pageSize * pageSize }
