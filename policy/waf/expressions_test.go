package waf

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"

	"github.com/weirmesh/weir/policy/waf/dfa"
)

var rxOperator = regexp.MustCompile(`"!?@rx ((?:[^"\\]|\\.)*)"`)

// Each expression of the core rules answers as Go's package does, for what it is
// meant for (pieces of the rules' own texts) and for what it is not.
func TestExpressionsOfTheCoreRulesAnswerAsBefore(t *testing.T) {
	values := []string{"", "en", "price", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "text/html,application/xhtml+xml;q=0.9", "1' OR '1'='1' -- ", "../../etc/passwd",
		"<script>alert(1)</script>", "${jndi:ldap://x}", "a\nb", "\xff\xfe", "größe ſK", "() { :;}; echo", "SELECT a\nFROM b", "bytes=0-1,2-3,4-5", strings.Repeat("a=b&", 50)}
	files, err := fs.Glob(coreruleset.FS, coreDir+"/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	asked, bytes := 0, 0
	for _, name := range files {
		text, err := fs.ReadFile(coreruleset.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range rxOperator.FindAllSubmatch(text, -1) {
			expression := strings.ReplaceAll(string(found[1]), `\"`, `"`)
			if binary(expression) {
				bytes++
				continue
			}
			m, err := dfa.Compile("(?sm)" + expression)
			if err != nil {
				t.Fatal(err)
			}
			re := regexp.MustCompile("(?sm)" + expression)
			for _, value := range append(values, expression, strings.ToUpper(expression)) {
				if got, want := m.Match(value), re.MatchString(value); got != want {
					t.Errorf("%q in %q is %t, not %t", expression, value, got, want)
				}
			}
			asked++
		}
	}
	if asked < 250 {
		t.Errorf("only %d expressions were found", asked)
	}
	t.Log(asked, "expressions, and of bytes", bytes)
}

func TestWhichExpressionsAreOfBytes(t *testing.T) {
	for expression, want := range map[string]bool{
		`a`: false, `é`: false, `\xc3\xa9`: false, `\xc3`: true, `\x{c3}`: true, `[\x80-\xff]`: true, `\x41`: false, `\x{41}`: false, `\x`: false, `\xzz`: false, "\xff": true,
	} {
		if got := binary(expression); got != want {
			t.Errorf("%q is %t, not %t", expression, got, want)
		}
	}
}
