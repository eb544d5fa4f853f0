package store

import (
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A raised revision is a change to those who watch, and nothing else is new.
func TestRaisedRevision(t *testing.T) {
	b := open(t)
	b.put(service("books"))
	before, books := b.View().Revision(), b.get(ref("Service", "books"))
	response := accepted(t, b.entry(&weirv1.Command{Action: &weirv1.Command_RaiseRevision{RaiseRevision: new(weirv1.RaiseRevision)}})[0])
	after := b.View().Revision()
	if after <= before || response.GetRevision() != after {
		t.Fatalf("the revision went from %d to %d, and is told as %d", before, after, response.GetRevision())
	}
	requireSame(t, books, b.get(ref("Service", "books")))
	for e, err := range b.Watch(t.Context(), before) {
		if err != nil || e.Revision != after || e.Reset || len(e.Puts)+len(e.Deletes) > 0 {
			t.Errorf("those who watch see %v, %v", e, err)
		}
		break
	}
	b.reopen()
	if got := b.View().Revision(); got != after {
		t.Errorf("after a restart it is %d, want %d", got, after)
	}
}
