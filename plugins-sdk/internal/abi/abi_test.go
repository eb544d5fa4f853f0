package abi

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func pairsOf(b []byte) (list [][2]string) {
	Pairs(b, func(name, value string) bool {
		list = append(list, [2]string{name, value})
		return true
	})
	return list
}

func encode(list [][2]string) []byte {
	return AppendPairs(nil, len(list), func(i int) (string, string) { return list[i][0], list[i][1] })
}

func TestPairs(t *testing.T) {
	want := [][2]string{{"a", "1"}, {"empty", ""}, {"", "x"}, {"long", strings.Repeat("y", 300)}}
	if got := pairsOf(encode(want)); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := encode([][2]string{{"a", "bc"}}); !bytes.Equal(got, []byte("\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00a\x00bc\x00")) {
		t.Errorf("encoded as %q", got)
	}
}

func FuzzPairs(f *testing.F) {
	f.Add(encode([][2]string{{"a", "1"}, {"b", ""}}))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xff\x01\x00\x00\x00a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list := pairsOf(slices.Clone(b))
		if again := pairsOf(encode(list)); !slices.Equal(again, list) {
			t.Errorf("%q reads as %v, and that as %v", b, list, again)
		}
	})
}

// fill is what a host does with memory it was given.
func fill(m *memory, text string) []byte {
	p := m.allocate(len(text))
	copy(unsafe.Slice((*byte)(p), len(text)), text)
	return m.take(uint32(uintptr(p)), uint32(len(text)))
}

func TestMemoryIsNeverGivenTwice(t *testing.T) {
	var m memory
	var texts []string
	var got [][]byte
	for n := range 3 * chunkSize / 100 {
		texts = append(texts, strings.Repeat(string(rune('a'+n%26)), n%300))
		got = append(got, fill(&m, texts[n]))
	}
	texts, got = append(texts, strings.Repeat("large", chunkSize)), append(got, fill(&m, strings.Repeat("large", chunkSize)))
	for i := range texts {
		if string(got[i]) != texts[i] {
			t.Fatalf("piece %d became %q", i, got[i])
		}
		if cap(got[i]) != len(got[i]) {
			t.Fatalf("piece %d can be appended to in place", i)
		}
	}
}

func TestSmallPiecesShareAnAllocation(t *testing.T) {
	var m memory
	if got := testing.AllocsPerRun(1000, func() { fill(&m, "a value of thirty-two characters") }); got > 0.1 {
		t.Errorf("%v allocations for each piece", got)
	}
}

func TestMemoryTheHostWasNotGiven(t *testing.T) {
	for name, take := range map[string]func(*memory, uint32){
		"another address": func(m *memory, address uint32) { m.take(address+1, 4) },
		"too much":        func(m *memory, address uint32) { m.take(address, 5) },
		"a second time":   func(m *memory, address uint32) { m.take(address, 4); m.take(address, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it was taken")
				}
			}()
			var m memory
			take(&m, uint32(uintptr(m.allocate(4))))
		})
	}
}
