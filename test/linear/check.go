package linear

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

type kind int

const (
	read kind = iota
	put
	compareAndSet
)

// input is what was asked, output what the client learned.
type input struct {
	kind                 kind
	key, expected, value string
}

type output struct {
	outcome Outcome
	value   string // of a read
}

func (in input) String() string {
	switch in.kind {
	case put:
		return fmt.Sprintf("put(%s, %q)", in.key, in.value)
	case compareAndSet:
		return fmt.Sprintf("cas(%s, %q → %q)", in.key, in.expected, in.value)
	}
	return fmt.Sprintf("read(%s)", in.key)
}

func describe(in, out any) string {
	o := out.(output)
	if in.(input).kind == read {
		return fmt.Sprintf("%v = %q", in, o.value)
	}
	return fmt.Sprintf("%v: %s", in, []string{"unknown", "applied", "mismatch", "refused"}[o.outcome])
}

// step is one register: whether a call can have had this output when the
// value was state, and what the value is then.
func step(state string, in input, out output) (possible bool, next string) {
	switch in.kind {
	case read:
		return out.value == state, state
	case put:
		return true, in.value
	}
	matches := state == in.expected
	switch {
	case out.outcome == Unknown && matches, out.outcome == Applied && matches:
		return true, in.value
	case out.outcome == Unknown, out.outcome == Mismatch && !matches:
		return true, state
	}
	return false, state
}

// registers is the model: one register for each key.
func registers() porcupine.Model {
	return porcupine.Model{
		Partition: byKey,
		Init:      func() any { return Absent },
		Step: func(state, in, out any) (bool, any) {
			return step(state.(string), in.(input), out.(output))
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return fmt.Sprintf("%q", state) },
	}
}

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	var parts [][]porcupine.Operation
	at := map[string]int{}
	for _, op := range history {
		key := op.Input.(input).key
		i, found := at[key]
		if !found {
			i = len(parts)
			at[key] = i
			parts = append(parts, nil)
		}
		parts[i] = append(parts[i], op)
	}
	return parts
}

// A Verdict is what a check found.
type Verdict int

const (
	Linearizable Verdict = iota
	Violated
	Undecided // the time was too short
)

func (v Verdict) String() string {
	return []string{"linearizable", "not linearizable", "undecided"}[v]
}

// Check checks the history, for so long at most. If it is not linearizable, a
// page that shows where it fails is written to the directory, and named.
func (h *History) Check(limit time.Duration, dir string) (verdict Verdict, page string, err error) {
	model := registers()
	result, info := porcupine.CheckOperationsVerbose(model, h.operations(), limit)
	switch result {
	case porcupine.Ok:
		return Linearizable, "", nil
	case porcupine.Unknown:
		return Undecided, "", nil
	}
	page = filepath.Join(dir, "history.html")
	if err := porcupine.VisualizePath(model, info, page); err != nil {
		return Violated, "", fmt.Errorf("draw history: %w", err)
	}
	return Violated, page, nil
}

// Require fails the test unless the history is linearizable. The page that
// shows why not is kept by go test -artifacts.
func (h *History) Require(t testing.TB, limit time.Duration) {
	t.Helper()
	verdict, page, err := h.Check(limit, t.ArtifactDir())
	if err != nil {
		t.Errorf("linear: %v", err)
	}
	switch verdict {
	case Violated:
		t.Errorf("linear: the history is %s: %+v; see %s (go test -artifacts keeps it)", verdict, h.Counts(), page)
	case Undecided:
		t.Errorf("linear: the history is %s after %v: %+v", verdict, limit, h.Counts())
	}
}
