package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// How much of the log's end stays in memory.
const (
	newestEntries = 64
	newestBytes   = 2 << 20
)

// newest are the entries at the end of the log, in order and without a gap. Raft
// reads each of them back: a leader for every follower, all to apply it.
type newest struct {
	mu      sync.Mutex
	entries []raft.Log
	bytes   int
}

// add takes in what was stored. What it replaces is forgotten, with all that
// came after that.
func (n *newest) add(entries []*raft.Log) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.entries) > 0 && entries[0].Index != n.entries[len(n.entries)-1].Index+1 {
		n.clear()
	}
	for _, entry := range entries {
		n.entries = append(n.entries, raft.Log{
			Index: entry.Index, Term: entry.Term, Type: entry.Type, Data: entry.Data, Extensions: entry.Extensions, AppendedAt: entry.AppendedAt,
		})
		n.bytes += len(entry.Data)
	}
	drop := 0
	for drop < len(n.entries) && (len(n.entries)-drop > newestEntries || n.bytes > newestBytes) {
		n.bytes -= len(n.entries[drop].Data)
		n.entries[drop] = raft.Log{} // the slice's array outlives the cut
		drop++
	}
	n.entries = n.entries[drop:]
}

// forget is for when the log is no longer what it was.
func (n *newest) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clear()
}

func (n *newest) clear() { n.entries, n.bytes = nil, 0 }

func (n *newest) get(index uint64, out *raft.Log) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.entries) == 0 || index < n.entries[0].Index || index > n.entries[len(n.entries)-1].Index {
		return false
	}
	*out = n.entries[index-n.entries[0].Index]
	return true
}
