package waf

import (
	"fmt"
	"regexp"
	"strings"
)

// directive is one of a policy's own, with the line that it begins in.
type directive struct {
	line int
	name string // lower case
	text string
}

// before are the directives that add rules, after those that change the rules
// that there are. All others are the host's.
var (
	before = words("secrule secaction secmarker secdataset")
	after  = words("secruleremovebyid secruleremovebytag secruleremovebymsg secruleupdatetargetbyid secruleupdatetargetbytag secruleupdateactionbyid")
)

// elsewhere says where in the settings stands what some directives say.
var elsewhere = map[string]string{
	"secruleengine":             "mode says that",
	"secrequestbodyaccess":      "bodies are always looked at",
	"secrequestbodylimit":       "bodyLimit says that",
	"secrequestbodylimitaction": "oversize says that",
	"secresponsebodyaccess":     "inspectResponse says that",
	"secresponsebodylimit":      "responseBodyLimit says that",
	"include":                   "it reads a file",
	"secremoterules":            "it loads rules from elsewhere",
	"secauditlog":               "it writes a file; hits are lines in the proxy's log",
	"secdebuglog":               "it writes a file",
	"secdatadir":                "it writes files",
	"secuploaddir":              "it writes files",
	"secuploadkeepfiles":        "it writes files",
	"secauditlogstoragedir":     "it writes files; hits are lines in the proxy's log",
	"secauditengine":            "hits are lines in the proxy's log",
	"secdefaultaction":          "it would change what the core rules do; write the actions out",
}

func words(list string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(list) {
		set[word] = true
	}
	return set
}

// split takes a text of rules apart as the engine would, and refuses what is not
// for a policy to say. Its error is a *Problem with the line.
func split(text string) ([]directive, error) {
	var all []directive
	var open *directive // one that goes on
	listed := false     // in a list between backticks
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if open == nil {
			open = &directive{line: i + 1}
		}
		last := line[len(line)-1]
		switch {
		case !listed && last == '`':
			listed = true
			fallthrough
		case listed && line[0] != '`':
			open.text += line + "\n"
			continue
		case !listed && last == '\\':
			open.text += strings.TrimSuffix(line, "\\")
			continue
		}
		listed = false
		open.text += line
		if err := open.check(); err != nil {
			return nil, err
		}
		all = append(all, *open)
		open = nil
	}
	if open != nil {
		return nil, atLine(open.line, "the text ends within this directive")
	}
	return all, chained(all)
}

// settable are what a rule may set by ctl: none of them lifts a limit.
var settable = words(`ruleengine ruleremovebyid ruleremovebytag ruleremovebymsg ruleremovetargetbyid ruleremovetargetbytag
	ruleremovetargetbymsg requestbodyprocessor forcerequestbodyvariable requestbodyaccess responsebodyaccess`)

var controls = regexp.MustCompile(`(?i)ctl\s*:\s*['"]?\s*([a-z]*)`)

func (d *directive) check() error {
	name, _, _ := strings.Cut(d.text, " ")
	d.name = strings.ToLower(strings.TrimSpace(name))
	if !before[d.name] && !after[d.name] {
		if why, ok := elsewhere[d.name]; ok {
			return atLine(d.line, "%s is not for a policy: %s", name, why)
		}
		return atLine(d.line, "%q is not for a policy: it may have SecRule, SecAction, SecMarker, SecDataset, SecRuleRemoveById, -ByTag, -ByMsg, "+
			"SecRuleUpdateTargetById, -ByTag and SecRuleUpdateActionById", shorten(name, 64))
	}
	for _, match := range controls.FindAllStringSubmatch(d.text, -1) {
		if !settable[strings.ToLower(match[1])] {
			return atLine(d.line, "ctl:%s is not for a policy: limits and logs are the proxy's", match[1])
		}
	}
	return nil
}

var endsInChain = regexp.MustCompile(`(?i)[",]\s*chain\s*(?:[",]|$)`)

// chained refuses a chain that goes on: its next rule would be one of the core's.
func chained(all []directive) error {
	open := 0
	for _, d := range all {
		switch {
		case d.name == "secrule" || d.name == "secaction":
			open = 0
			if endsInChain.MatchString(d.text) {
				open = d.line
			}
		case open != 0:
			return atLine(open, "the rule begins a chain, and %s follows: a chain goes on with a SecRule", d.name)
		}
	}
	if open != 0 {
		return atLine(open, "the rule begins a chain that does not go on")
	}
	return nil
}

func atLine(line int, format string, args ...any) error {
	return &Problem{"rules", fmt.Sprintf("line %d: ", line) + fmt.Sprintf(format, args...)}
}

// shorten keeps what others wrote to a length that fits a line.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
