package waf

import (
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Whatever a text of rules holds, it is taken or refused.
func FuzzRules(f *testing.F) {
	for _, text := range []string{
		"", "SecRule ARGS \"@rx a\" \"id:1,phase:1,deny\"", "SecAction \"id:1,phase:1,pass\"\n# x\n\nSecMarker A", "SecRule \\", "SecDataset a `\nb\n`",
		"SecRuleRemoveById 942100-942999", "SecRuleUpdateTargetById 942100 \"!ARGS:a\"", "SecRuleUpdateActionById 942100 \"pass\"", "`", "\\\n\\",
		"SecRule ARGS \"@within %{tx.a}\" \"id:1,phase:2,ctl:ruleRemoveTargetById=1;ARGS:a,setvar:tx.a=+%{tx.b}\"",
	} {
		f.Add(text)
	}
	restrict()
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 {
			return
		}
		all, err := split(text)
		if err != nil {
			return
		}
		for _, d := range all {
			if !before[d.name] && !after[d.name] {
				t.Errorf("%q is taken", d.text)
			}
		}
		if r, err := compile(&weirv1.Firewall{Rules: text}); err == nil {
			r.close()
		}
	})
}

// A part's disposition is read whatever it holds, and no name of a file is lost.
func FuzzDisposition(f *testing.F) {
	for _, text := range []string{"form-data; name=a", `form-data; name="a"; filename="b\"c"`, "form-data; filename*=utf-8''a%20b", `a;b="c`, ";;;", "a; filename*0=b; filename*1=c"} {
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text string) { readDisposition([]string{text}) })
}
