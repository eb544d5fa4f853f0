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
	if b.View().Revision() != revision {
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
