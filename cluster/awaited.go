package cluster

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// awaited are the commands that this member has sent to the leader. Applying
// the same entries gives the same results everywhere, so the leader only says
// where a command came to stand, and the result is taken from this member's own
// state machine. It may get there before the leader's answer does, so it keeps
// the results of the ids that are awaited.
type awaited struct {
	mu  sync.Mutex
	ids map[string]*await
}

// await is one command that was sent, perhaps several times over.
type await struct {
	waiting int
	results []placed
}

// placed is the result of the command at a place of an entry.
type placed struct {
	index  uint64
	place  int
	result any
}

func newAwaited() *awaited { return &awaited{ids: map[string]*await{}} }

// add begins to keep the results of an id; each add is undone by a remove.
func (a *awaited) add(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids[id] == nil {
		a.ids[id] = new(await)
	}
	a.ids[id].waiting++
}

func (a *awaited) remove(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.ids[id]; w != nil {
		if w.waiting--; w.waiting == 0 {
			delete(a.ids, id)
		}
	}
}

// find returns the result of an id at a place.
func (a *awaited) find(id string, index uint64, place int) (any, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.ids[id]; w != nil {
		for _, p := range w.results {
			if p.index == index && p.place == place {
				return p.result, true
			}
		}
	}
	return nil, false
}

// any returns the first result of an id, wherever it came to stand.
func (a *awaited) any(id string) (any, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.ids[id]; w != nil && len(w.results) > 0 {
		return w.results[0].result, true
	}
	return nil, false
}

// applied notes the results of an entry for who awaits them.
func (a *awaited) applied(index uint64, entry []byte, results []any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ids) == 0 {
		return
	}
	place := 0
	for command := range commandsIn(entry) {
		if place == len(results) {
			return
		}
		if w := a.ids[commandID(command)]; w != nil {
			w.results = append(w.results, placed{index, place, results[place]})
		}
		place++
	}
}

// commandsIn are the commands of an entry that this package made; what else is
// there ends it.
func commandsIn(entry []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(entry) > 0 {
			number, kind, n := protowire.ConsumeTag(entry)
			if n < 0 || number != entryCommands || kind != protowire.BytesType {
				return
			}
			command, m := protowire.ConsumeBytes(entry[n:])
			if m < 0 || !yield(command) {
				return
			}
			entry = entry[n+m:]
		}
	}
}

const commandIDField = 1

// commandID is the id in an encoded command.
func commandID(command []byte) string {
	for len(command) > 0 {
		number, kind, n := protowire.ConsumeTag(command)
		if n < 0 {
			return ""
		}
		if number == commandIDField && kind == protowire.BytesType {
			id, m := protowire.ConsumeBytes(command[n:])
			if m < 0 {
				return ""
			}
			return string(id)
		}
		m := protowire.ConsumeFieldValue(number, kind, command[n:])
		if m < 0 {
			return ""
		}
		command = command[n+m:]
	}
	return ""
}
