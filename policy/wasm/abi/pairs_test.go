package abi

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type pair struct{ Name, Value string }

func encode(pairs []pair) []byte {
	return AppendPairs(nil, len(pairs), func(i int) ([]byte, []byte) {
		return []byte(pairs[i].Name), []byte(pairs[i].Value)
	})
}

func decode(p Pairs) []pair {
	var out []pair
	for name, value := range p.All {
		out = append(out, pair{string(name), string(value)})
	}
	return out
}

func TestPairsTravel(t *testing.T) {
	b := encode([]pair{{":path", "/X"}, {"X-Name", ""}})
	want := "\x02\x00\x00\x00" + "\x05\x00\x00\x00\x02\x00\x00\x00" + "\x06\x00\x00\x00\x00\x00\x00\x00" +
		":path\x00/X\x00" + "x-name\x00\x00"
	if string(b) != want {
		t.Errorf("got %q", b)
	}
	p, err := ParsePairs(b)
	if diff := cmp.Diff([]pair{{":path", "/X"}, {"x-name", ""}}, decode(p)); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestMalformedPairsAreRefused(t *testing.T) {
	good := encode([]pair{{"a", "b"}})
	for name, b := range map[string][]byte{
		"short":                good[:3],
		"cut lengths":          good[:8],
		"cut values":           good[:len(good)-1],
		"too many":             append([]byte{1, 4, 0, 0}, make([]byte, 1025*10)...),
		"lengths that wrap":    append([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, 8)...),
		"more than is allowed": make([]byte, MaxPairsBytes+1),
	} {
		if _, err := ParsePairs(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if p, err := ParsePairs(nil); err != nil || p.Len() != 0 {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzParsePairs(f *testing.F) {
	f.Add(encode([]pair{{"a", "b"}, {"c", ""}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePairs(b)
		if err != nil {
			return
		}
		pairs := decode(p)
		if len(pairs) != p.Len() {
			t.Fatalf("%d pairs of %d", len(pairs), p.Len())
		}
		for _, p := range pairs {
			if bytes.ContainsAny([]byte(p.Name), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				return // is made lower-case
			}
		}
		again, err := ParsePairs(encode(pairs))
		if diff := cmp.Diff(pairs, decode(again)); diff != "" || err != nil {
			t.Error(err, diff)
		}
	})
}
