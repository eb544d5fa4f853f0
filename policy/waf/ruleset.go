package waf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/debuglog"
	"github.com/corazawaf/coraza/v3/experimental"
	"github.com/corazawaf/coraza/v3/types"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// What holds where settings say nothing.
const (
	defaultThreshold    = 5
	defaultOutbound     = 4
	defaultBodyLimit    = 128 << 10
	defaultResponseBody = 512 << 10
)

// What bounds a body beside its length.
const (
	maxArguments = 1000
	maxDepth     = 128 // of JSON
)

// ruleset is rules that are compiled.
type ruleset struct {
	waf      coraza.WAF
	block    bool
	reject   bool // bodies over the limit
	response bool
	// limit and responseLimit are how much of bodies is looked at.
	limit, responseLimit int
}

// begin starts an exchange's transaction. Its matches are told to the hits that
// the context leads to.
func (r *ruleset) begin(ctx context.Context, id string) types.Transaction {
	return r.waf.(experimental.WAFWithOptions).NewTransactionWithOptions(experimental.Options{ID: id, Context: ctx})
}

// close frees what the engine keeps of it. Transactions under way are not concerned.
func (r *ruleset) close() {
	if c, ok := r.waf.(io.Closer); ok {
		_ = c.Close() // it frees memory, which cannot fail
	}
}

// compile makes the ruleset of settings. Its error is a *Problem where they are at
// fault.
func compile(f *weirv1.Firewall) (_ *ruleset, err error) {
	defer func() {
		if caught := recover(); caught != nil {
			err = fmt.Errorf("the engine failed: %v\n%s", caught, debug.Stack())
		}
	}()
	r := &ruleset{
		block:         f.GetMode() != weirv1.Firewall_DETECT,
		response:      f.GetInspectResponse(),
		limit:         int(cmp.Or(f.GetBodyLimit(), defaultBodyLimit)),
		responseLimit: int(cmp.Or(f.GetResponseBodyLimit(), defaultResponseBody)),
	}
	r.reject = r.block && f.GetOversize() != weirv1.Firewall_PARTIAL
	parts, err := r.parts(f)
	if err != nil {
		return nil, err
	}
	files := &files{texts: map[string]string{}, lines: map[string]int{}}
	config := coraza.NewWAFConfig().WithRootFS(files).WithErrorCallback(hit).WithDebugLogger(debuglog.Noop())
	for i, p := range parts {
		config = config.WithDirectivesFromFile(files.add(i, p))
	}
	if r.waf, err = coraza.NewWAF(config); err != nil {
		if line := files.lines[files.last]; line > 0 {
			return nil, atLine(line, "%s", plain(err))
		}
		return nil, fmt.Errorf("%s: %w", files.last, err)
	}
	return r, nil
}

// plain takes from an engine's error what it says of files that there are none of.
func plain(err error) string {
	text := err.Error()
	for _, noise := range []string{"invalid WAF config from file: ", "failed to parse string: "} {
		text = strings.ReplaceAll(text, noise, "")
	}
	return text
}

// part is directives: a text of ours, one of the policy's own with its line, or a
// file of the core rules.
type part struct {
	text string
	line int
	file string
}

// parts are all directives in the order in which the engine reads them.
//
//	the engine's settings, the core's ─▶ core's variables ─▶ exclusions by path,
//	own rules ─▶ core rules ─▶ changes of rules, exclusions for all paths
func (r *ruleset) parts(f *weirv1.Firewall) ([]part, error) {
	own, err := split(f.GetRules())
	if err != nil {
		return nil, err
	}
	files, err := r.coreFiles()
	if err != nil {
		return nil, err
	}
	initialise, rules := files[:2], files[2:]
	parts := []part{{text: r.engine() + setup(f)}}
	for _, name := range initialise {
		parts = append(parts, part{file: name})
	}
	e := newExclusions(f)
	parts = append(parts, part{text: e.byPath.String()})
	for _, d := range own {
		if before[d.name] {
			parts = append(parts, part{text: d.text, line: d.line})
		}
	}
	for _, name := range rules {
		parts = append(parts, part{file: name})
	}
	for _, d := range own {
		if after[d.name] {
			parts = append(parts, part{text: d.text, line: d.line})
		}
	}
	return append(parts, part{text: e.everywhere.String()}), nil
}

// coreFiles are the core rules' files in their order, those first that set the
// variables of the others. Those for answers are left out where none is looked at,
// and the one that sums up what was logged always: our own line does.
func (r *ruleset) coreFiles() ([]string, error) {
	all, err := fs.Glob(coreruleset.FS, coreDir+"/*.conf")
	if err != nil {
		return nil, fmt.Errorf("list core rules: %w", err)
	}
	slices.Sort(all)
	all = slices.DeleteFunc(all, func(name string) bool {
		return strings.Contains(name, "/RESPONSE-") && !r.response || strings.Contains(name, "/RESPONSE-980-")
	})
	if len(all) < 3 || !strings.Contains(all[0], "-901-") || !strings.Contains(all[1], "-905-") {
		return nil, errors.New("the core rules are not as expected")
	}
	return all, nil
}

// engine sets the engine up. One more byte than the limit is given to it, so that
// it sees the difference between a body that ends there and one that is cut.
func (r *ruleset) engine() string {
	mode := "DetectionOnly"
	if r.block {
		mode = "On"
	}
	response := "Off"
	if r.response {
		response = "On"
	}
	return fmt.Sprintf(`SecRuleEngine %s
SecAuditEngine Off
SecArgumentsLimit %d
SecRequestBodyAccess On
SecRequestBodyLimit %d
SecRequestBodyLimitAction ProcessPartial
SecRequestBodyJsonDepthLimit %d
SecResponseBodyAccess %s
SecResponseBodyLimit %d
SecResponseBodyLimitAction ProcessPartial
SecResponseBodyMimeType text/plain text/html text/xml application/json application/xml
SecDefaultAction "phase:1,log,noauditlog,pass"
SecDefaultAction "phase:2,log,noauditlog,pass"
SecDefaultAction "phase:3,log,noauditlog,pass"
SecDefaultAction "phase:4,log,noauditlog,pass"
SecDefaultAction "phase:5,log,noauditlog,pass"
%s`, mode, maxArguments, r.limit+1, maxDepth, response, r.responseLimit+1, engineRules)
}

// engineRules choose how bodies are parsed, and refuse those that could not be, or
// not whole. Their numbers are those by which the engine's users know them.
const engineRules = `
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:application/(?:[a-z0-9.-]+\+)?|text/)xml" \
  "id:200000,phase:1,pass,nolog,t:none,t:lowercase,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/(?:[a-z0-9.-]+\+)?json" \
  "id:200001,phase:1,pass,nolog,t:none,t:lowercase,ctl:requestBodyProcessor=JSON"
SecRule REQBODY_ERROR "!@eq 0" \
  "id:200002,phase:2,deny,status:400,log,t:none,msg:'The body could not be parsed',severity:CRITICAL,tag:'weir/body'"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" \
  "id:200003,phase:2,deny,status:400,log,t:none,msg:'The multipart body is ambiguous',severity:CRITICAL,tag:'weir/body'"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" \
  "id:200004,phase:2,deny,status:400,log,t:none,msg:'There are too many parameters',severity:CRITICAL,tag:'weir/body'"
`

// What the core rules would refuse, and a gateway for APIs must not: which methods
// and types of content there are, the routes say and the services.
const (
	methods      = "GET HEAD POST OPTIONS PUT PATCH DELETE"
	contentTypes = "|application/x-www-form-urlencoded| |multipart/form-data| |multipart/related| |text/xml| |application/xml| |application/soap+xml| " +
		"|application/json| |application/cloudevents+json| |application/cloudevents-batch+json| |application/merge-patch+json| |application/json-patch+json| " +
		"|application/vnd.api+json| |application/ld+json| |application/problem+json|"
)

// setup sets the core rules up, as their crs-setup.conf does.
func setup(f *weirv1.Firewall) string {
	return fmt.Sprintf(`SecAction "id:900990,phase:1,pass,nolog,t:none,\
  setvar:tx.crs_setup_version=1,\
  setvar:tx.blocking_paranoia_level=%d,\
  setvar:tx.inbound_anomaly_score_threshold=%d,\
  setvar:tx.outbound_anomaly_score_threshold=%d,\
  setvar:'tx.allowed_methods=%s',\
  setvar:'tx.allowed_request_content_type=%s'"
`, cmp.Or(f.GetParanoiaLevel(), 1), cmp.Or(f.GetAnomalyThreshold(), defaultThreshold), cmp.Or(f.GetOutboundThreshold(), defaultOutbound), methods, contentTypes)
}

// files is what the engine reads its directives from, while it compiles: parts by
// their names, and the core rules' module. It remembers which was read last, since
// the engine's errors do not say where they are.
type files struct {
	texts map[string]string
	lines map[string]int
	last  string
}

func (f *files) add(i int, p part) string {
	if p.file != "" {
		return p.file
	}
	name := "part-" + strconv.Itoa(i)
	f.texts[name], f.lines[name] = p.text, p.line
	return name
}

// Open implements fs.FS.
func (f *files) Open(name string) (fs.File, error) { return coreruleset.FS.Open(name) }

// ReadFile implements fs.ReadFileFS.
func (f *files) ReadFile(name string) ([]byte, error) {
	if text, ok := f.texts[name]; ok {
		f.last = name
		return []byte(text), nil
	}
	if strings.HasSuffix(name, ".conf") {
		f.last = name
	}
	text, err := fs.ReadFile(coreruleset.FS, name)
	if err != nil || !strings.HasSuffix(name, ".conf") {
		return text, err
	}
	return logData.ReplaceAll(text, nil), nil
}

// logData is what core rules would log of what matched. We log none of it, and the
// engine would write it out for each rule that it looks at, matching or not.
var logData = regexp.MustCompile(`(?m)^\s*logdata:'[^'\n]*',\\\n`)

// exclusions are directives that take rules out: where that depends on the path,
// rules that do it for an exchange; otherwise they are changed once.
type exclusions struct {
	byPath, everywhere strings.Builder
	known              func(id uint32) bool
}

// firstExclusion is the number of the first rule that excludes others.
const firstExclusion = 9_990_000

func newExclusions(f *weirv1.Firewall) *exclusions {
	own, all := catalogOf(f)
	e := &exclusions{known: func(id uint32) bool { return own.ids[id] || all.ids[id] }}
	for i, x := range f.GetExclusions() {
		if len(x.GetPaths()) > 0 {
			e.addByPath(firstExclusion+i, x)
		} else {
			e.addEverywhere(x)
		}
	}
	return e
}

// numbers are the rules' numbers and ranges as directives want them.
func numbers(x *weirv1.FirewallExclusion) []string {
	var list []string
	for _, id := range x.GetRuleIds() {
		list = append(list, strconv.FormatUint(uint64(id), 10))
	}
	for _, r := range x.GetRuleRanges() {
		list = append(list, fmt.Sprintf("%d-%d", r.GetFirst(), r.GetLast()))
	}
	return list
}

// targets are the parts of a request as the engine calls them.
func targets(x *weirv1.FirewallExclusion) []string {
	var list []string
	for _, name := range x.GetParameters() {
		list = append(list, "ARGS:"+name, "ARGS_GET:"+name, "ARGS_POST:"+name)
	}
	for _, name := range x.GetHeaders() {
		list = append(list, "REQUEST_HEADERS:"+name)
	}
	for _, name := range x.GetCookies() {
		list = append(list, "REQUEST_COOKIES:"+name)
	}
	return list
}

func (e *exclusions) addByPath(id int, x *weirv1.FirewallExclusion) {
	var controls []string
	of := targets(x)
	control := func(whole, target, rules string) {
		if len(of) == 0 {
			controls = append(controls, "ctl:"+whole+"="+rules)
		}
		for _, t := range of {
			controls = append(controls, "ctl:"+target+"="+rules+";"+t)
		}
	}
	for _, rules := range numbers(x) {
		control("ruleRemoveById", "ruleRemoveTargetById", rules)
	}
	for _, tag := range x.GetTags() {
		control("ruleRemoveByTag", "ruleRemoveTargetByTag", tag)
	}
	fmt.Fprintf(&e.byPath, "SecRule REQUEST_URI_RAW \"@rx %s\" \"id:%d,phase:1,pass,nolog,t:none,%s\"\n", pathExpression(x.GetPaths()), id, strings.Join(controls, ","))
}

// pathExpression matches a request's target as routes are matched: its path as it
// was sent, normalised, and then perhaps a query.
func pathExpression(paths []*weirv1.PathMatch) string {
	var list []string
	for _, p := range paths {
		switch p.GetType() {
		case weirv1.PathMatch_EXACT:
			list = append(list, regexp.QuoteMeta(p.GetValue()))
		case weirv1.PathMatch_REGULAR_EXPRESSION:
			list = append(list, "(?:"+p.GetValue()+")")
		default:
			list = append(list, regexp.QuoteMeta(strings.TrimSuffix(p.GetValue(), "/"))+`(?:/[^?]*)?`)
		}
	}
	return quoted(`^(?:` + strings.Join(list, "|") + `)(?:\?|$)`)
}

// quoted writes an expression so that it may stand between quotes on one line.
func quoted(expression string) string {
	var b strings.Builder
	for i := 0; i < len(expression); i++ {
		c := expression[i]
		escaped := c == '\\' && i+1 < len(expression)
		if escaped {
			i++
			c = expression[i]
		}
		switch {
		case c < ' ' || c == '"' || c == '`' || c == '%':
			fmt.Fprintf(&b, `\x%02x`, c)
		case escaped:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (e *exclusions) addEverywhere(x *weirv1.FirewallExclusion) {
	of := targets(x)
	if len(of) == 0 {
		if list := numbers(x); len(list) > 0 {
			fmt.Fprintf(&e.everywhere, "SecRuleRemoveById %s\n", strings.Join(list, " "))
		}
		for _, tag := range x.GetTags() {
			fmt.Fprintf(&e.everywhere, "SecRuleRemoveByTag %s\n", tag)
		}
		return
	}
	variables := "!" + strings.Join(of, "|!")
	for _, id := range x.GetRuleIds() {
		if e.known(id) { // the engine fails where there is none
			fmt.Fprintf(&e.everywhere, "SecRuleUpdateTargetById %d \"%s\"\n", id, variables)
		}
	}
	for _, r := range x.GetRuleRanges() {
		if r.GetFirst() < r.GetLast() || e.known(r.GetFirst()) {
			fmt.Fprintf(&e.everywhere, "SecRuleUpdateTargetById %d-%d \"%s\"\n", r.GetFirst(), r.GetLast(), variables)
		}
	}
	for _, tag := range x.GetTags() {
		fmt.Fprintf(&e.everywhere, "SecRuleUpdateTargetByTag %s \"%s\"\n", tag, variables)
	}
}
