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
// each command of each entry: *weirv1.ApplyResponse, *weirv1.LeaseTokensResponse for
// GrantLeases, or *RefusedError. The
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
	s.files.RLock()
	defer s.files.RUnlock()
	if err := s.makeRoom(); err != nil {
		return nil, err
	}
	d := newDraft(s.View(), s.memory)
	d.begin = s.begin
	results, applied, err := d.entries(s.Applied(), indexes, entries)
	if err == nil {
		err = s.keep(d, applied, entries)
	}
	if err != nil {
		d.rollback()
		s.memory.undo(d.forgotten)
		return nil, err
	}
	s.publish(d, applied)
	return results, nil
}

// begin opens the file for a draft, with all that was decided before.
func (s *Store) begin() (*bolt.Tx, error) {
	if err := s.settle(); err != nil {
		return nil, err
	}
	return s.db.Begin(true)
}

// keep writes what a draft decided: to the file if the draft has it open, else it
// is gathered.
func (s *Store) keep(d *draft, applied uint64, entries [][]byte) error {
	b, bytes := s.unwritten.gathered, 0
	for _, data := range entries {
		bytes += len(data)
	}
	if d.tx != nil {
		b = newBatch()
	}
	b.add(d.writes, d.receipts, bytes, applied, d.revision)
	if d.tx == nil {
		return nil
	}
	if err := b.put(d.tx); err != nil {
		return err
	}
	return d.tx.Commit()
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
	leases    *iradix.Txn[*weirv1.LeaseRecord]
	clock     *weirv1.LeaseClock

	memory *memory
	// forgotten are the receipts in whose place others were kept.
	forgotten []receipt
	events    []*Event
	writes    []write
	receipts  []counted

	// begin opens the file for what has to be read or changed there at once; tx is
	// nil until something has. nil: it is a dry run.
	begin func() (*bolt.Tx, error)
	tx    *bolt.Tx
}

func newDraft(v *View, m *memory) *draft {
	return &draft{
		base:      v,
		revision:  v.revision,
		resources: v.resources.Txn(),
		referrers: v.referrers.Txn(),
		values:    v.values.Txn(),
		blobs:     v.blobs.Txn(),
		leases:    v.leases.Txn(),
		clock:     v.clock,
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
		leases:    d.leases.Commit(),
		clock:     d.clock,
	}
}

// entries decides those that come after what was applied.
func (d *draft) entries(applied uint64, indexes []uint64, entries [][]byte) ([][]any, uint64, error) {
	results := make([][]any, len(entries))
	for i, data := range entries {
		entry, err := decodeEntry(data)
		if err != nil {
			return nil, 0, fmt.Errorf("entry %d: %w", indexes[i], err)
		}
		results[i] = make([]any, len(entry.GetCommands()))
		if indexes[i] <= applied {
			continue
		}
		applied = indexes[i]
		for j, command := range entry.GetCommands() {
			if results[i][j], err = d.apply(applied, command); err != nil {
				return nil, 0, fmt.Errorf("entry %d, command %d: %w", applied, j, err)
			}
		}
	}
	return results, applied, nil
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
	case *weirv1.Command_TransactVersions:
		response, refused, err = d.transact(action.TransactVersions, index, c.GetTime())
	case *weirv1.Command_Create:
		if refused = d.checkNew(action.Create); refused == nil {
			response, refused, err = d.transact(action.Create, index, c.GetTime())
		}
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
	case *weirv1.Command_GrantLeases:
		return d.leaseResult(action.GrantLeases, c.GetTime().AsTime()), nil
	case *weirv1.Command_ApplyUsage:
		// Not remembered: to do it again changes nothing, and there are many.
		if refused, err = d.applyUsage(action.ApplyUsage, c.GetTime().AsTime()); refused == nil {
			return &weirv1.ApplyResponse{Revision: d.revision}, err
		}
	default:
		err = fmt.Errorf("%T is no action", action)
	}
	if err != nil || refused != nil {
		return refused, err
	}
	if response == nil {
		response = &weirv1.ApplyResponse{Revision: d.revision}
	}
	d.remember(c, response)
	return response, nil
}

// raiseRevision makes a change of which only the number is new.
func (d *draft) raiseRevision(index uint64) *weirv1.ApplyResponse {
	event := &Event{Previous: d.revision, Revision: max(index, d.revision+1)}
	d.revision = event.Revision
	d.events = append(d.events, event)
	return &weirv1.ApplyResponse{Revision: d.revision}
}

func (d *draft) put(bucket, key, value []byte) {
	d.writes = append(d.writes, write{bucket: bucket, key: key, value: value})
}

func (d *draft) drop(bucket, key []byte) {
	d.writes = append(d.writes, write{bucket: bucket, key: key, gone: true})
}

// file opens the file, with what was decided before this draft. What a draft
// writes there itself are the chunks of blobs, and usage.
func (d *draft) file() (_ *bolt.Tx, err error) {
	if d.tx == nil {
		d.tx, err = d.begin()
	}
	return d.tx, err
}

// rollback leaves the file as it was.
func (d *draft) rollback() {
	if d.tx != nil {
		_ = d.tx.Rollback() // its one error is that the transaction has ended
	}
}
