package dfa

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// expressions have each kind of instruction, and each assertion.
var expressions = []string{
	``, `a`, `^`, `$`, `^$`, `\A\z`, `(?m)^a$`, `(?s)a.b`, `a.b`, `(?i)kelvin`, `(?i)straße`, `[^a-z]`, `\bword\b`, `\Bx\B`, `a\b|\bb`, `(?m)^\s*$`,
	`(a|b)*c`, `(?:a?){8}a{8}`, `[α-ω]+`, `\pL{2}\d`, `x*`, `^(?:foo|bar)$`, `(?sm)^[\s\S]*?--`, `(?i)union.{1,20}select`, `\x{FFFD}`, `a{2,5}b`, `(?i)[k-s]`,
	`(?sm)(?i)<script[^>]*>[\s\S]*?`, `^\d+$|^$`, `[[:^ascii:]]`, `(?U)a+b`, `(^|x)a`, `(?m)$\n^`, `\z`, `(?:$|a)b?`, `[^\n]$`,
}

func TestMatchIsThatOfRegexp(t *testing.T) {
	texts := []string{"", "a", "b", "ab", "a\nb", "\na\n", "word", "a word!", "swords", "KELVIN", "\u212aelvin", "STRASSE", "straſſe", "straße", "STRAßE", "\xff", "a\xffb", "\xe2\x82",
		"αβγ", "ΑΒΓ1", "ab3", strings.Repeat("a", 16), strings.Repeat("a", 7) + "b", "foo", "foobar", "foo\n", "1 UNION ALL\nSELECT", "<ScRiPt src=x>", "\n\n", "x", "xx", "xxx", "_x_", "ſ", "aab", " \n \n"}
	for _, expression := range expressions {
		m, err := Compile(expression)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile(expression)
		for range 2 { // making states, then following them
			for _, text := range texts {
				if got, want := m.Match(text), re.MatchString(text); got != want {
					t.Errorf("%q in %q is %t, not %t", expression, text, got, want)
				}
			}
		}
	}
}

func TestSubmatches(t *testing.T) {
	m, err := Compile(`(a)(b)?`)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Submatches("xa"); len(got) != 6 || got[0] != 1 || got[4] != -1 {
		t.Errorf("submatches are %v", got)
	}
	if got := m.Submatches("x"); got != nil {
		t.Errorf("submatches of none are %v", got)
	}
}

func TestWhatIsNoExpressionIsRefused(t *testing.T) {
	if _, err := Compile(`(`); err == nil {
		t.Error("compiled")
	}
}

// An expression with a state for each of a million texts forgets them, answers as
// ever, and never keeps more than it may; for many at a time.
func TestStatesAreBounded(t *testing.T) {
	const expression = `(?s)(?:a.{14}|b.{11})c`
	m, err := Compile(expression)
	if err != nil {
		t.Fatal(err)
	}
	re, first := regexp.MustCompile(expression), m.states.Load()
	var all sync.WaitGroup
	for seed := range 4 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			text := make([]byte, 400)
			for range 50 {
				for i := range text {
					text[i] = "abxxxxxx"[random.IntN(8)]
				}
				text[random.IntN(len(text))] = 'c'
				if got, want := m.Match(string(text)), re.Match(text); got != want {
					t.Errorf("%q is %t, not %t", text, got, want)
				}
			}
		})
	}
	all.Wait()
	now := m.states.Load()
	if now == first {
		t.Error("nothing was forgotten")
	}
	now.mu.Lock()
	defer now.mu.Unlock()
	kept := 0
	for _, s := range now.known {
		kept += 8*len(s.next) + 8*len(s.pcs)
	}
	if kept > maxMemory {
		t.Errorf("%d bytes of states are kept", kept)
	}
}

func TestNoAllocationOnceStatesAreMade(t *testing.T) {
	m, err := Compile(`(?i)\bunion\b.{1,20}\bselect\b`)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("a union of states ", 10)
	m.Match(text)
	if n := testing.AllocsPerRun(100, func() { m.Match(text) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzMatch(f *testing.F) {
	for _, expression := range expressions {
		f.Add(expression, "a\xffbK\n")
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		if len(expression) > 200 || len(text) > 2000 {
			return
		}
		re, err := regexp.Compile(expression)
		m, got := Compile(expression)
		if (err == nil) != (got == nil) {
			t.Fatalf("%q: %v, and by regexp %v", expression, got, err)
		}
		if err == nil && m.Match(text) != re.MatchString(text) {
			t.Errorf("%q in %q is not %t", expression, text, re.MatchString(text))
		}
	})
}
