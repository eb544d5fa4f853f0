package store

import (
	"maps"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestValues(t *testing.T) {
	b := open(t)
	revision := b.View().Revision()
	accepted(t, b.entry(putValue("join-token", "b", "1"), putValue("join-token", "a", "2"), putValue("join-tokens", "c", "3"))[0])
	accepted(t, b.entry(putValue("join-token", "b", "4"))[0])
	requireValues(t, b, "join-token", map[string]string{"a": "2", "b": "4"})
	requireValues(t, b, "join-tokens", map[string]string{"c": "3"})
	requireValues(t, b, "join", map[string]string{})

	accepted(t, b.entry(deleteValue("join-token", "a", true))[0])
	accepted(t, b.entry(deleteValue("join-token", "a", false))[0])
	requireValues(t, b, "join-token", map[string]string{"b": "4"})
	values := b.View()
	b.put(gateway("g"))
	if !b.View().SameValues(values) || b.View().SameValues(nil) {
		t.Error("what is declared has changed the values")
	}
	accepted(t, b.entry(putValue("join-token", "b", "5"))[0])
	if b.View().SameValues(values) {
		t.Error("a value that was put is not seen")
	}
	if values.Revision() != revision {
		t.Error("a value has changed the revision of what is declared")
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	b := open(t)
	accepted(t, b.entry(putValue("t", "k", "v"))[0])
	onlyNew := putValue("t", "k", "other")
	onlyNew.GetPutValue().MustNotExist = true
	tests := map[string]struct {
		command *weirv1.Command
		want    string
	}{
		"one that is there":   {onlyNew, `ALREADY_EXISTS t k: it is there already`},
		"one that is not":     {deleteValue("t", "l", true), `NOT_FOUND t l: it is not there`},
		"no key":              {putValue("t", "", "v"), `INVALID t : a table and a key have 1 to 512 bytes, none of them zero`},
		"no table":            {deleteValue("", "k", true), `INVALID  k: a table and a key have 1 to 512 bytes, none of them zero`},
		"a zero byte":         {putValue("t\x00k", "v", "v"), "INVALID t\x00k v: a table and a key have 1 to 512 bytes, none of them zero"},
		"one that is too big": {putValue("t", "k", strings.Repeat("x", maxValue+1)), `INVALID t k: the value has 524289 bytes; the most is 524288`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			requireRefused(t, b.entry(test.command)[0], test.want)
			requireValues(t, b, "t", map[string]string{"k": "v"})
		})
	}
}

func TestChangeValues(t *testing.T) {
	b := open(t)
	accepted(t, b.entry(putValue("t", "a", "1"))[0])
	be := func(key, was, is string) *weirv1.ValueChange {
		return &weirv1.ValueChange{Table: "t", Key: key, MustBe: []byte(was), Value: []byte(is)}
	}
	create := func(key, is string) *weirv1.ValueChange {
		return &weirv1.ValueChange{Table: "t", Key: key, MustNotExist: true, Value: []byte(is)}
	}
	accepted(t, b.entry(changeValues(be("a", "1", "2"), create("b", "")))[0])
	requireValues(t, b, "t", map[string]string{"a": "2", "b": ""})
	// Of two that go by the same state, the first wins, in one entry too.
	results := b.entry(changeValues(be("a", "2", "3")), changeValues(be("a", "2", "4")))
	accepted(t, results[0])
	requireRefused(t, results[1], `CONFLICT t a: it has changed`)
	// A value that must be empty is another thing than one that must not be there.
	accepted(t, b.entry(changeValues(&weirv1.ValueChange{Table: "t", Key: "b", MustBe: []byte{}}))[0])
	accepted(t, b.entry(changeValues(&weirv1.ValueChange{Table: "t", Key: "never"}))[0])
	requireValues(t, b, "t", map[string]string{"a": "3"})

	both := create("a", "x")
	both.MustBe = []byte("3")
	for name, test := range map[string]struct {
		changes []*weirv1.ValueChange
		want    string
	}{
		"one that is there":         {[]*weirv1.ValueChange{create("new", "x"), create("a", "x")}, `ALREADY_EXISTS t a: it is there already`},
		"one that is not":           {[]*weirv1.ValueChange{create("new", "x"), be("b", "", "x")}, `CONFLICT t b: it is not there any more`},
		"one that is another":       {[]*weirv1.ValueChange{create("new", "x"), be("a", "2", "x")}, `CONFLICT t a: it has changed`},
		"the same twice":            {[]*weirv1.ValueChange{create("new", "x"), create("new", "y")}, `INVALID t new: it is changed twice`},
		"absent and with a value":   {[]*weirv1.ValueChange{create("new", "x"), both}, `INVALID t a: it cannot be absent and have a value`},
		"no key":                    {[]*weirv1.ValueChange{create("new", "x"), create("", "")}, `INVALID t : a table and a key have 1 to 512 bytes, none of them zero`},
		"a value that is too large": {[]*weirv1.ValueChange{create("new", strings.Repeat("x", maxValue+1))}, `INVALID t new: the value has 524289 bytes; the most is 524288`},
	} {
		t.Run(name, func(t *testing.T) {
			requireRefused(t, b.entry(changeValues(test.changes...))[0], test.want)
			requireValues(t, b, "t", map[string]string{"a": "3"})
		})
	}
}

func requireValues(t *testing.T, b *bench, table string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for key, value := range maps.All(maps.Collect(b.View().Values(table))) {
		got[key] = string(value)
	}
	requireSame(t, want, got)
	for key, value := range want {
		if got, ok := b.View().Value(table, key); !ok || string(got) != value {
			t.Fatalf("value %s/%s is %q, %v; want %q", table, key, got, ok, value)
		}
	}
}
