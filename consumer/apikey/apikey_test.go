package apikey

import (
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
)

// A key is recognisable, long enough, and never the same.
func TestNew(t *testing.T) {
	form, seen, count := regexp.MustCompile(`^weir_[0-9A-Za-z]{32}$`), map[string]bool{}, map[rune]int{}
	const keys = 10_000
	for range keys {
		key := New()
		if !form.MatchString(key) || seen[key] {
			t.Fatalf("got %q", key)
		}
		seen[key] = true
		for _, letter := range key[len(Mark):] {
			count[letter]++
		}
	}
	for _, letter := range letters {
		// 5,161 of each are expected; six standard deviations are 430.
		if got, want := count[letter], keys*random/len(letters); got < want-430 || got > want+430 {
			t.Errorf("%c is there %d times, not about %d", letter, got, want)
		}
	}
}

// What is shown of a key is its beginning, and what is kept its SHA-256.
func TestWhatIsKept(t *testing.T) {
	key := New()
	if got := Prefix(key); len(got) != 12 || !strings.HasPrefix(key, got) {
		t.Errorf("%q is shown as %q", key, got)
	}
	if got := Prefix("short"); got != "short" {
		t.Errorf("got %q", got)
	}
	sum := Sum("abc") // FIPS 180-2, B.1
	if got := hex.EncodeToString(sum[:]); got != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("got %s", got)
	}
	bytes := []byte(key)
	if Sum(bytes) != Sum(key) {
		t.Error("text and bytes have different sums")
	}
	if n := testing.AllocsPerRun(100, func() { Sum(bytes) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
