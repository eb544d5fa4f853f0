package exchange

import (
	"fmt"
	"testing"
)

func TestNotes(t *testing.T) {
	x := &Exchange{}
	key, value := []byte("a\x00b"), []byte("1")
	x.SetNote(key, value)
	key[0], value[0] = 'z', 'z' // copied
	x.SetNote([]byte("c"), []byte("2"))
	x.SetNote([]byte("c"), []byte("3"))
	for key, want := range map[string]string{"a\x00b": "1", "c": "3", "z\x00b": "none"} {
		got, ok := x.Note([]byte(key))
		if !ok {
			got = []byte("none")
		}
		if string(got) != want {
			t.Errorf("%q is %s, want %s", key, got, want)
		}
	}
	for i := range maxNotes - 2 {
		if !x.SetNote(fmt.Append(nil, i), nil) {
			t.Fatalf("note %d is refused", i)
		}
	}
	if x.SetNote([]byte("one too many"), nil) || !x.SetNote([]byte("c"), []byte("4")) {
		t.Error("the bound on notes")
	}
	x.Reset()
	if _, ok := x.Note([]byte("c")); ok {
		t.Error("a note outlives its exchange")
	}
}
