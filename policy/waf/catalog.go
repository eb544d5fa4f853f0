package waf

import (
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"sync"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// coreDir is where the core rules lie in their module's files.
const coreDir = "@owasp_crs"

// catalog is what exclusions may name: the numbers and tags of rules.
type catalog struct {
	ids  map[uint32]bool
	tags map[string]bool
}

var (
	ruleID  = regexp.MustCompile(`[",\s]id:\s*'?([0-9]+)`)
	ruleTag = regexp.MustCompile(`[",\s]tag:\s*'?([^',"]+)`)
)

// core is the catalog of the core rules, read once.
var core = sync.OnceValue(func() catalog {
	c := catalog{map[uint32]bool{}, map[string]bool{}}
	files, err := fs.Glob(coreruleset.FS, coreDir+"/*.conf")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("the core rules are not there: %v", err))
	}
	for _, name := range files {
		text, err := fs.ReadFile(coreruleset.FS, name)
		if err != nil {
			panic(err) // it is part of the program
		}
		c.add(string(text))
	}
	return c
})

func (c *catalog) add(text string) {
	for _, match := range ruleID.FindAllStringSubmatch(text, -1) {
		if id, err := strconv.ParseUint(match[1], 10, 32); err == nil {
			c.ids[uint32(id)] = true
		}
	}
	for _, match := range ruleTag.FindAllStringSubmatch(text, -1) {
		c.tags[strings.TrimSpace(match[1])] = true
	}
}

// catalogOf is what there is under these settings.
func catalogOf(f *weirv1.Firewall) (own, all catalog) {
	own = catalog{map[uint32]bool{}, map[string]bool{}}
	own.add(" " + f.GetRules())
	own.add(" " + engineRules)
	return own, core()
}

// has reports whether there is a rule of a number from first to last.
func (c catalog) has(first, last uint32) bool {
	if c.ids[first] || c.ids[last] {
		return true
	}
	for id := range c.ids {
		if id >= first && id <= last {
			return true
		}
	}
	return false
}

// checkExclusions refuses those that exclude nothing: their rules' numbers are
// mistaken. A proxy that has them already passes over them, since another release
// of the core rules may have others.
func checkExclusions(f *weirv1.Firewall) error {
	own, all := catalogOf(f)
	for i, e := range f.GetExclusions() {
		for j, id := range e.GetRuleIds() {
			if !own.ids[id] && !all.ids[id] {
				return &Problem{fmt.Sprintf("exclusions[%d].ruleIds[%d]", i, j), fmt.Sprintf("there is no rule %d", id)}
			}
		}
		for j, r := range e.GetRuleRanges() {
			if !own.has(r.GetFirst(), r.GetLast()) && !all.has(r.GetFirst(), r.GetLast()) {
				return &Problem{fmt.Sprintf("exclusions[%d].ruleRanges[%d]", i, j), fmt.Sprintf("there is no rule from %d to %d", r.GetFirst(), r.GetLast())}
			}
		}
		for j, tag := range e.GetTags() {
			if !own.tags[tag] && !all.tags[tag] {
				return &Problem{fmt.Sprintf("exclusions[%d].tags[%d]", i, j), fmt.Sprintf("no rule has the tag %q", tag)}
			}
		}
	}
	return nil
}
