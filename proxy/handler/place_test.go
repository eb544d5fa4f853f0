package handler

import (
	"testing"
)

// The context of a call that was never served ends, too: a connection lasts, and
// would keep the contexts of all the calls that it had wrong.
func TestACallThatIsNeverServedIsForgotten(t *testing.T) {
	s := new(serving)
	s.places.New = func() any { return new(place) }
	p := s.take(&client{ctx: t.Context()})
	p.Begin()
	ctx := p.ctx
	s.give(p)
	if ctx.Err() == nil {
		t.Error("its context goes on")
	}
}
