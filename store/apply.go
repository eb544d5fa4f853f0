package store

import (
	"fmt"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// Apply does the entries of a log in one transaction and returns a result for
// each command of each entry: *weirv1.ApplyResponse, or *RefusedError. The
// commands of an entry at or below Applied were done before, their results are
// nil. An empty entry only moves Applied. Where the disk is full it waits for space;
// if the store is told to stop meanwhile, the results are ErrStopped, and nothing was
// or will be done.
func (s *Store) Apply(indexes []uint64, entries [][]byte) [][]any {
	if s.stopped.Load() {
		return stopped(entries)
	}
	for told := false; ; {
		results, err := s.try(indexes, entries)
		switch {
		case err == nil:
			if told {
				s.log.Info("there is space on the disk of the state again")
			}
			s.full.Store(false)
			return results
		case !isFull(err):
			panic("store: " + err.Error())
		case !told:
			told = true
			s.log.Error("the disk of the state is full: nothing is applied here until there is space again", "dir", s.dir, "error", err)
		}
		s.full.Store(true)
		if !s.awaitSpace() {
			return stopped(entries)
		}
	}
}

// try does the entries, or nothing of them.
func (s *Store) try(indexes []uint64, entries [][]byte) ([][]any, error) {
	results := make([][]any, len(entries))
	d := newDraft(s.View(), s.memory)
	applied := s.Applied()
	s.files.RLock()
	defer s.files.RUnlock()
	err := s.db.Update(func(tx *bolt.Tx) error {
		d.tx = tx
		for i, data := range entries {
			entry, err := decodeEntry(data)
			if err != nil {
				return fmt.Errorf("entry %d: %w", indexes[i], err)
			}
			results[i] = make([]any, len(entry.GetCommands()))
			if indexes[i] <= applied {
				continue
			}
			applied = indexes[i]
			for j, command := range entry.GetCommands() {
				if results[i][j], err = d.apply(applied, command); err != nil {
					return fmt.Errorf("entry %d, command %d: %w", applied, j, err)
				}
			}
		}
		return d.finish(applied)
	})
	if err != nil {
		s.memory.undo(d.forgotten)
		return nil, err
	}
	s.publish(d, applied)
	return results, nil
}

// publish shows what was decided. The view and the events that lead to it
// appear together.
func (s *Store) publish(d *draft, applied uint64) {
	view := d.view()
	s.history.add(d.events, func() { s.view.Store(view) })
	s.applied.Store(applied)
}

// reading is how entries and what is stored are decoded. Both hold messages
// that callers sent inside other ones, so what was decoded as a request at the
// usual limit of nesting must not be too deep here: every member would end on
// it, at every start.
var reading = proto.UnmarshalOptions{RecursionLimit: 2 * protowire.DefaultRecursionLimit}

// decodeEntry reads one log entry. A command of no known kind is an error: it
// was made by a later version, whose members would do something here.
func decodeEntry(data []byte) (*weirv1.Entry, error) {
	entry := new(weirv1.Entry)
	if err := reading.Unmarshal(data, entry); err != nil {
		return nil, fmt.Errorf("read commands: %w", err)
	}
	for i, command := range entry.GetCommands() {
		if command.GetAction() == nil {
			return nil, fmt.Errorf("read command %d: it is of no kind that this version knows", i)
		}
	}
	return entry, nil
}

// draft is a view in the making: what a batch of entries has decided so far,
// written to the transaction as it goes.
type draft struct {
	base      *View
	revision  uint64
	resources *iradix.Txn[*weirv1.Resource]
	referrers *iradix.Txn[resource.Ref]
	values    *iradix.Txn[[]byte]
	blobs     *iradix.Txn[blob]

	memory *memory
	// forgotten are the receipts in whose place others were kept.
	forgotten []receipt
	events    []*Event
	tx        *bolt.Tx
}

func newDraft(v *View, m *memory) *draft {
	return &draft{
		base:      v,
		revision:  v.revision,
		resources: v.resources.Txn(),
		referrers: v.referrers.Txn(),
		values:    v.values.Txn(),
		blobs:     v.blobs.Txn(),
		memory:    m,
	}
}

func (d *draft) view() *View {
	list := d.base.listing
	if d.revision != d.base.revision {
		list = new(listing)
	}
	return &View{
		listing:   list,
		revision:  d.revision,
		resources: d.resources.Commit(),
		referrers: d.referrers.Commit(),
		values:    d.values.Commit(),
		blobs:     d.blobs.Commit(),
	}
}

func (d *draft) finish(applied uint64) error {
	if err := putNumber(d.tx, keyRevision, d.revision); err != nil {
		return err
	}
	return putNumber(d.tx, keyApplied, applied)
}

// apply decides one command. An error is the disk's, or a command that no
// member can read; a refusal is a result.
func (d *draft) apply(index uint64, c *weirv1.Command) (result any, err error) {
	if first, ok := d.memory.recall(c.GetId()); ok {
		return d.repeat(first, c), nil
	}
	var response *weirv1.ApplyResponse
	var refused *RefusedError
	switch action := c.GetAction().(type) {
	case *weirv1.Command_Transact:
		response, refused, err = d.transact(action.Transact, index, c.GetTime())
	case *weirv1.Command_PutBlobChunk:
		refused, err = d.putBlobChunk(action.PutBlobChunk, c.GetTime())
	case *weirv1.Command_PutValue:
		refused, err = d.putValue(action.PutValue)
	case *weirv1.Command_DeleteValue:
		refused, err = d.deleteValue(action.DeleteValue)
	case *weirv1.Command_RaiseRevision:
		response = d.raiseRevision(index)
	case *weirv1.Command_ChangeValues:
		refused, err = d.changeValues(action.ChangeValues)
	default:
		err = fmt.Errorf("%T is no action", action)
	}
	if err != nil || refused != nil {
		return refused, err
	}
	if response == nil {
		response = &weirv1.ApplyResponse{Revision: d.revision}
	}
	return response, d.remember(c, response)
}

// raiseRevision makes a change of which only the number is new.
func (d *draft) raiseRevision(index uint64) *weirv1.ApplyResponse {
	event := &Event{Previous: d.revision, Revision: max(index, d.revision+1)}
	d.revision = event.Revision
	d.events = append(d.events, event)
	return &weirv1.ApplyResponse{Revision: d.revision}
}

func (d *draft) put(bucket, key, value []byte) error {
	return d.tx.Bucket(bucket).Put(key, value)
}

func (d *draft) drop(bucket, key []byte) error {
	return d.tx.Bucket(bucket).Delete(key)
}
