package resource

import (
	"strings"
	"unicode"
)

// Nearest returns the candidate that a misspelt word was most likely meant to
// be, or "" when none is near. Case, "_" and "-" do not count.
func Nearest(word string, candidates []string) string {
	best, distance := "", 1+len(word)/3
	for _, candidate := range candidates {
		w, c := fold(word), fold(candidate)
		if w == c {
			return candidate
		}
		// HTTPRoute was meant to be Route, and Prefix to be PathPrefix.
		if len(c) > 3 && strings.HasSuffix(w, c) || len(w) > 3 && (strings.HasSuffix(c, w) || strings.HasPrefix(c, w)) {
			best, distance = candidate, 1
			continue
		}
		if d := editDistance(w, c); d < distance || d == distance && best == "" {
			best, distance = candidate, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// editDistance counts the letters to insert, delete, change or swap with their
// neighbour. What is longer than any name is far from all of them.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		now := make([]int, len(b)+1)
		now[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			now[j+1] = min(change, last[j+1]+1, now[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last = last, now
	}
	return last[len(b)]
}

// ParseKind reads a kind as people type it: any case, singular or plural.
func ParseKind(word string) (kind string, ok bool) {
	for _, kind := range Kinds() {
		lower := strings.ToLower(kind)
		if w := strings.ToLower(word); w == lower || w == Plural(kind) {
			return kind, true
		}
	}
	return "", false
}

// Plural is how people write several of a kind: policies.
func Plural(kind string) string {
	word := strings.ToLower(kind)
	if stem, ok := strings.CutSuffix(word, "y"); ok && !strings.HasSuffix(stem, "a") {
		return stem + "ies"
	}
	return word + "s"
}
