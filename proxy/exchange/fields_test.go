package exchange

import (
	"testing"
)

func TestFields(t *testing.T) {
	var f Fields
	add := func(name, value string) bool { return f.Add([]byte(name), []byte(value)) }
	text := func() (s string) {
		for i := range f.Len() {
			s += string(f.At(i).Name) + "=" + string(f.At(i).Value) + ";"
		}
		return s
	}
	add("Accept", "a")
	add("X-One", "1")
	add("accept", "b")
	if got := string(f.Get("ACCEPT")); got != "a" {
		t.Errorf("Get takes the first, whatever the case: got %q", got)
	}
	f.Set([]byte("ACCEPT"), []byte("c"))
	if got, want := text(), "Accept=c;X-One=1;"; got != want {
		t.Errorf("Set replaces the first and drops the others: got %q, want %q", got, want)
	}
	if !f.Del("x-one") || f.Del("x-one") {
		t.Error("Del tells whether there was one")
	}
	if add("bad name", "v") || add("", "v") || add("a:b", "v") {
		t.Error("a name that is no token is refused")
	}
	add("X-Split", "a\r\nX-Evil:\t1\x00\x7f\xff")
	if got, want := text(), "Accept=c;X-Split=a  X-Evil:\t1  \xff;"; got != want {
		t.Errorf("a value cannot break out of its field: got %q, want %q", got, want)
	}
}

func TestEqualFold(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"Host", "hOST", true}, {"a", "b", false}, {"@", "`", false}, {"[", "{", false},
		{"x-1", "X-1", true}, {"x-1", "X-\x11", false}, {"", "", true}, {"a", "ab", false},
	} {
		if got := EqualFold([]byte(c.a), c.b); got != c.want {
			t.Errorf("EqualFold(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestArenaKeepsEarlierCopies(t *testing.T) {
	var x Exchange
	first := x.Copy("first ", "value")
	for range 200 {
		x.Copy("something that fills the arena and makes it move")
	}
	first = append(first, '!') // must not write into a neighbour
	if string(first) != "first value!" {
		t.Errorf("an earlier copy changed: %q", first)
	}
	x.Reset()
	x.CopyBytes(make([]byte, 1<<20))
	x.Reset()
	if cap(x.arena) > keptArena {
		t.Errorf("an exchange keeps %d bytes for the next", cap(x.arena))
	}
	x.Copy("warm")
	if n := testing.AllocsPerRun(100, func() { x.Copy("warm"); x.Reset() }); n != 0 {
		t.Errorf("a warm arena allocates %v times", n)
	}
}
