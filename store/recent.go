package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// memory keeps what became of the last commands that changed something, by
// their ids: a proposer that lost sight of a command may send it again. It is
// part of the state, so every member forgets the same ones.
//
// Only revision and outcomes are kept. The rest of an answer is the command's
// own, which a repeat brings along, and the resources as they are now.
type memory struct {
	slots []receipt
	byID  map[string]int
	// next counts all receipts ever; its slot is the next to be overwritten.
	next uint64
}

type receipt struct {
	id       string
	revision uint64
	// outcomes has a byte for each put and each delete of a Transact.
	outcomes []byte
}

// remembered is how many commands are. At a thousand a second it is sixteen
// seconds, several times what a change of leader takes.
const remembered = 16 << 10

// longestID bounds a command's id; a longer one is not remembered.
const longestID = 64

func newMemory() *memory {
	return &memory{slots: make([]receipt, remembered), byID: map[string]int{}}
}

func (m *memory) recall(id string) (receipt, bool) {
	slot, ok := m.byID[id]
	if !ok {
		return receipt{}, false
	}
	return m.slots[slot], true
}

// keep takes the place of the oldest receipt, and returns that.
func (m *memory) keep(r receipt) (forgotten receipt) {
	slot := int(m.next % remembered)
	forgotten = m.slots[slot]
	delete(m.byID, forgotten.id)
	m.slots[slot] = r
	m.byID[r.id] = slot
	m.next++
	return forgotten
}

// undo takes back the newest receipts, for which these were forgotten.
func (m *memory) undo(forgotten []receipt) {
	for _, was := range slices.Backward(forgotten) {
		m.next--
		slot := int(m.next % remembered)
		delete(m.byID, m.slots[slot].id)
		if m.slots[slot] = was; was.id != "" {
			m.byID[was.id] = slot
		}
	}
}

// remember stores what became of a command. A chunk is not remembered: storing
// one twice is harmless by itself.
func (d *draft) remember(c *weirv1.Command, response *weirv1.ApplyResponse) {
	if c.GetId() == "" || len(c.GetId()) > longestID || c.GetPutBlobChunk() != nil {
		return
	}
	r := receipt{id: c.GetId(), revision: response.GetRevision()}
	for _, result := range response.GetResults() {
		r.outcomes = append(r.outcomes, byte(result.GetOutcome()))
	}
	d.receipts = append(d.receipts, counted{r, d.memory.next})
	d.forgotten = append(d.forgotten, d.memory.keep(r))
}

// repeat answers a command that was done before.
func (d *draft) repeat(first receipt, c *weirv1.Command) any {
	t := transactOf(c)
	if len(first.outcomes) != len(t.GetPuts())+len(t.GetDeletes()) {
		return refuse(resource.Ref{Kind: "Command", Name: c.GetId()}, Conflict, "another command has had this id")
	}
	response := &weirv1.ApplyResponse{Revision: first.revision}
	add := func(ref resource.Ref) {
		outcome := weirv1.ApplyResult_Outcome(first.outcomes[len(response.Results)])
		now, _ := d.resources.Get(resourceKey(ref))
		if outcome == weirv1.ApplyResult_DELETED {
			now = nil
		}
		response.Results = append(response.Results, &weirv1.ApplyResult{Ref: ref.Proto(), Outcome: outcome, Resource: now})
	}
	for _, r := range t.GetPuts() {
		add(resource.Of(r))
	}
	for _, m := range t.GetDeletes() {
		add(resource.RefOf(m))
	}
	return response
}

// transactOf is the change of declarations that a command asks for; nil: none.
func transactOf(c *weirv1.Command) *weirv1.Transact {
	switch action := c.GetAction().(type) {
	case *weirv1.Command_Transact:
		return action.Transact
	case *weirv1.Command_TransactVersions:
		return action.TransactVersions
	case *weirv1.Command_Create:
		return action.Create
	}
	return nil
}

// append encodes a receipt: count, revision, the id with its length, outcomes.
func (r receipt) append(b []byte, count uint64) []byte {
	b = binary.BigEndian.AppendUint64(b, count)
	b = binary.BigEndian.AppendUint64(b, r.revision)
	b = append(b, byte(len(r.id)))
	b = append(b, r.id...)
	return append(b, r.outcomes...)
}

// load puts a stored receipt back into its slot.
func (m *memory) load(key, value []byte) error {
	if len(key) != 4 || len(value) < 17 || len(value) < 17+int(value[16]) {
		return errors.New("read a remembered command: it is cut short")
	}
	slot, count := int(binary.BigEndian.Uint32(key)), binary.BigEndian.Uint64(value)
	if value[16] == 0 || slot >= remembered || uint64(slot) != count%remembered {
		return fmt.Errorf("read a remembered command: %d is not the place of number %d", slot, count)
	}
	id := string(value[17 : 17+int(value[16])])
	r := receipt{id: id, revision: binary.BigEndian.Uint64(value[8:]), outcomes: append([]byte(nil), value[17+len(id):]...)}
	m.slots[slot] = r
	m.byID[id] = slot
	m.next = max(m.next, count+1)
	return nil
}
