// Package linear records what concurrent clients did to a key-value store and
// checks that it could have been done one after another: that it is
// linearizable.
//
//	h := linear.NewHistory()
//	call := h.Put(client, "k", "v1")
//	err := store.Put(ctx, "k", "v1")
//	call.End(outcome(err))                     // Applied, Refused or Unknown
//	...
//	h.Require(t, 30*time.Second)
//
// # Outcomes
//
// Applied is said only when the store said so, Refused only when nothing can
// have happened, now or later. All else is Unknown: a timeout, a broken
// connection, a leader that lost its office. A write whose outcome is unknown
// may have happened, may happen at any later time, or never; the history must
// be possible with one of these. A call that has not ended is unknown too. A
// careless Refused hides nothing, but makes a correct store fail.
//
// # Values
//
// Give every write a value of its own. Then a read says which write it saw, and
// a compare-and-set by revision is one by value: the client expects the value
// that it read with that revision. The value of a key that is not there is
// Absent, so a put of Absent is a removal, and a creation is a compare-and-set
// that expects Absent.
//
// Many unknown writes of one key make a check slow, since each may be anywhere;
// spread them over keys, which are checked apart.
package linear

import (
	"fmt"
	"math"
	"sync"

	"github.com/anishathalye/porcupine"
)

// Absent is the value of a key that is not there.
const Absent = ""

// An Outcome is what a client learned of its write.
type Outcome int

const (
	Unknown  Outcome = iota // perhaps it was done, or will be
	Applied                 // it was done
	Mismatch                // of a compare-and-set: not done, the value was another
	Refused                 // it was not done and never will be
)

// A History is what all clients did. Its methods may be called by all of them.
//
// Times are places in one order, which a lock gives: a call comes after all
// that had ended before it began, and that is all that matters.
type History struct {
	mu    sync.Mutex
	clock int64
	calls []*call
}

// call is one operation, by one client.
type call struct {
	history      *History
	client       int
	input        input
	output       output
	began, ended int64 // ended is 0 until then
	void         bool  // says nothing: a refused write, a failed read
}

// A WriteCall is a write that has begun.
type WriteCall struct{ call }

// A ReadCall is a read that has begun.
type ReadCall struct{ call }

// NewHistory makes a history in which no key is there.
func NewHistory() *History { return &History{} }

// Put begins a write of a value, whatever it was.
func (h *History) Put(client int, key, value string) *WriteCall {
	return h.write(client, input{kind: put, key: key, value: value})
}

// CompareAndSet begins a write of a value in place of the one expected.
func (h *History) CompareAndSet(client int, key, expected, value string) *WriteCall {
	return h.write(client, input{kind: compareAndSet, key: key, expected: expected, value: value})
}

// Read begins a read.
func (h *History) Read(client int, key string) *ReadCall {
	c := &ReadCall{call{history: h, client: client, input: input{kind: read, key: key}}}
	h.begin(&c.call)
	return c
}

func (h *History) write(client int, in input) *WriteCall {
	c := &WriteCall{call{history: h, client: client, input: in}}
	h.begin(&c.call)
	return c
}

func (h *History) begin(c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	c.began = h.clock
	h.calls = append(h.calls, c)
}

// End says how a write ended. A write ends once.
func (c *WriteCall) End(outcome Outcome) {
	if outcome == Mismatch && c.input.kind != compareAndSet {
		panic("linear: a put ended in a mismatch")
	}
	c.end(output{outcome: outcome}, outcome == Refused)
}

// Saw says what a read found.
func (c *ReadCall) Saw(value string) { c.end(output{outcome: Applied, value: value}, false) }

// Failed says that a read found nothing out.
func (c *ReadCall) Failed() { c.end(output{}, true) }

func (c *call) end(out output, void bool) {
	h := c.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.ended != 0 {
		panic(fmt.Sprintf("linear: %s ended twice", c.input))
	}
	h.clock++
	c.output, c.ended, c.void = out, h.clock, void
}

// Counts say how a history came out, so that a test can tell that it tested.
type Counts struct{ Applied, Mismatched, Unknown, Refused, Reads, FailedReads int }

// Counts counts the calls so far. Those that have not ended are unknown.
func (h *History) Counts() (n Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		*c.counter(&n)++
	}
	return n
}

func (c *call) counter(n *Counts) *int {
	switch {
	case c.input.kind == read && c.output.outcome == Applied:
		return &n.Reads
	case c.input.kind == read:
		return &n.FailedReads
	}
	return map[Outcome]*int{Applied: &n.Applied, Mismatch: &n.Mismatched, Unknown: &n.Unknown, Refused: &n.Refused}[c.output.outcome]
}

// operations are the calls that say something, as the checker takes them. A
// write of unknown outcome never returns, so it may be put at the very end,
// where it changes nothing for anybody: that is how it never happened. As its
// client goes on, it is drawn in a row of its own, below those of the clients.
func (h *History) operations() []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []porcupine.Operation
	row := 0
	for _, c := range h.calls {
		row = max(row, c.client+1)
	}
	for _, c := range h.calls {
		pending := c.ended == 0 || c.output.outcome == Unknown
		if c.void || pending && c.input.kind == read {
			continue
		}
		op := porcupine.Operation{ClientId: c.client, Input: c.input, Output: c.output, Call: c.began, Return: c.ended}
		if pending {
			op.Output, op.Return, op.ClientId = output{outcome: Unknown}, math.MaxInt64, row
			row++
		}
		all = append(all, op)
	}
	return all
}
