package resource

import (
	"fmt"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// What the web application firewall may be asked for.
const (
	maxParanoia      = 4
	maxScore         = 10_000
	maxBodyLimit     = 768 << 10 // and a chunk more is less than policies may hold
	maxRuleText      = 48 << 10
	maxFirewallRules = 100_000_000
)

// native checks a policy that is the firewall's use: what is for plugins has no
// meaning there.
func (c *check) native(at Path, spec *weirv1.PolicySpec) {
	if spec.GetPlugin() != "" {
		c.add(at.Field("plugin"), "a policy is the use of a plugin or of the web application firewall (waf), not of both")
	}
	if spec.GetConfig() != nil {
		c.add(at.Field("config"), "is for plugins; the firewall's settings stand in waf")
	}
	if len(spec.GetServices()) > 0 {
		c.add(at.Field("services"), "is for plugins; the firewall calls no services")
	}
	c.firewall(at.Field("waf"), spec.GetWaf())
}

// firewall checks all but what the rules' own text says: that is compiled before
// it is stored.
func (c *check) firewall(at Path, f *weirv1.Firewall) {
	c.most(at.Field("paranoiaLevel"), f.GetParanoiaLevel(), maxParanoia, "1")
	c.most(at.Field("anomalyThreshold"), f.GetAnomalyThreshold(), maxScore, "5")
	c.most(at.Field("outboundThreshold"), f.GetOutboundThreshold(), maxScore, "4")
	c.most(at.Field("bodyLimit"), f.GetBodyLimit(), maxBodyLimit, "131072")
	c.most(at.Field("responseBodyLimit"), f.GetResponseBodyLimit(), maxBodyLimit, "524288")
	if f.GetMode() == weirv1.Firewall_DETECT && f.GetOversize() == weirv1.Firewall_REJECT {
		c.add(at.Field("oversize"), "must not be REJECT in mode DETECT, in which nothing is refused")
	}
	if !f.GetInspectResponse() && f.GetResponseBodyLimit() != 0 {
		c.add(at.Field("responseBodyLimit"), "has no meaning without inspectResponse: true")
	}
	if n := len(f.GetRules()); n > maxRuleText {
		c.add(at.Field("rules"), "must have at most %d bytes, not %d", maxRuleText, n)
	}
	c.count(at.Field("exclusions"), len(f.GetExclusions()), 0, maxEntries, "exclusion")
	for i, e := range f.GetExclusions() {
		c.exclusion(at.Field("exclusions").Index(i), e)
	}
}

func (c *check) most(at Path, n, most uint32, usual string) {
	if n > most {
		c.add(at, "must be from 1 to %d, not %d; leave it out for %s", most, n, usual)
	}
}

func (c *check) exclusion(at Path, e *weirv1.FirewallExclusion) {
	if len(e.GetRuleIds())+len(e.GetRuleRanges())+len(e.GetTags()) == 0 {
		c.add(at, "needs ruleIds, ruleRanges or tags: the rules that are taken out")
	}
	c.count(at.Field("ruleIds"), len(e.GetRuleIds()), 0, maxEntries, "rule")
	for i, id := range e.GetRuleIds() {
		c.ruleID(at.Field("ruleIds").Index(i), id)
	}
	c.count(at.Field("ruleRanges"), len(e.GetRuleRanges()), 0, maxEntries, "range")
	for i, r := range e.GetRuleRanges() {
		at := at.Field("ruleRanges").Index(i)
		c.ruleID(at.Field("first"), r.GetFirst())
		c.ruleID(at.Field("last"), r.GetLast())
		if r.GetLast() < r.GetFirst() {
			c.add(at.Field("last"), "must not be less than first, which is %d", r.GetFirst())
		}
	}
	c.names(at.Field("tags"), e.GetTags(), checkRuleTag)
	c.count(at.Field("paths"), len(e.GetPaths()), 0, maxEntries, "path")
	for i, p := range e.GetPaths() {
		c.path(at.Field("paths").Index(i).Field("value"), p)
	}
	c.names(at.Field("parameters"), e.GetParameters(), checkRequestPart)
	c.names(at.Field("headers"), e.GetHeaders(), checkHeaderName)
	c.names(at.Field("cookies"), e.GetCookies(), checkRequestPart)
}

func (c *check) ruleID(at Path, id uint32) {
	if id == 0 || id >= maxFirewallRules {
		c.add(at, "is the number of a rule, such as 942100, not %d", id)
	}
}

func (c *check) names(at Path, names []string, syntax func(string) string) {
	c.count(at, len(names), 0, maxEntries, "entry")
	for i, name := range names {
		c.syntax(at.Index(i), syntax(name))
	}
}

// checkRuleTag: tags are words with slashes, such as "attack-sqli".
func checkRuleTag(s string) string { return checkWord(s, "a tag of rules", "/-_.+:") }

// checkRequestPart: the name of a parameter or a cookie, of characters that mean
// nothing to the language of rules.
func checkRequestPart(s string) string {
	return checkWord(s, "the name of a part of a request", "-_.[]@+")
}

func checkWord(s, what, marks string) string {
	switch {
	case s == "":
		return "is required: " + what
	case len(s) > 256:
		return fmt.Sprintf("is %d bytes long; the most is 256", len(s))
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && strings.IndexByte(marks, s[i]) < 0 {
			return fmt.Sprintf("%q holds %q; %s has letters, digits and %s", s, s[i:i+1], what, marks)
		}
	}
	return ""
}
