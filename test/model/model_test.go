package model

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// config is the routes that are declared, by name. It is not changed once made.
type config map[string]*weirv1.Route

// question is what a client asks.
type question struct {
	method, host, path, query string
	fields                    http.Header // X-A and X-B
	body                      string
	origin                    string // of the page that asks; empty: none
	wants                     string // the method that it is about to use: this is a preflight
}

// outcomes are the answers that are right; several, where weights decide.
func (c config) outcomes(q question) (all []string) {
	if answer := c.preflighted(q); answer != "" {
		return []string{answer}
	}
	rule, match := c.best(q)
	if rule == nil {
		return []string{"404 []"}
	}
	shared := " " + pageWords(shared(corsOf(rule), q))
	if redirect, status := redirected(rule, match, q); redirect != "" {
		return []string{fmt.Sprintf("%d to %s, answer %s", status, redirect, answered(rule, http.Header{})) + shared}
	}
	asked, page := sent(rule, match, q), shared
	if corsOf(rule) == nil { // what the service says stands
		page = " " + pageWords(pageFields())
	}
	for _, b := range rule.BackendRefs {
		if b.Weight != nil && *b.Weight == 0 {
			continue
		}
		for _, subset := range subsets {
			if b.Subset == "" || b.Subset == subset {
				all = append(all, fmt.Sprintf("200 by %s/%s: %s, answer %s", b.Name, subset, asked, answered(rule, serviceFields()))+page)
			}
		}
	}
	if all == nil {
		return []string{"500" + shared}
	}
	return all
}

// sent is what a rule makes of a question.
func sent(rule *weirv1.RouteRule, match *weirv1.RouteMatch, q question) question {
	q.fields = q.fields.Clone()
	for _, f := range rule.Filters {
		modify(q.fields, f.RequestHeaderModifier)
	}
	for _, f := range rule.Filters {
		if w := f.UrlRewrite; w != nil {
			q.host = cmp.Or(w.Hostname, q.host)
			q.path = replaced(w.Path, match, q.path)
		}
	}
	return q
}

// copies are what is sent to the shadows beside, in order.
func (c config) copies(q question) (all []string) {
	rule, match := c.best(q)
	if rule == nil || c.preflighted(q) != "" {
		return nil
	}
	if redirect, _ := redirected(rule, match, q); redirect != "" {
		return nil
	}
	for _, f := range rule.Filters {
		if m := f.RequestMirror; m != nil && m.Percent == nil {
			all = append(all, fmt.Sprintf("%s: %s", m.BackendRef.Name, sent(rule, match, q)))
		}
	}
	slices.Sort(all)
	return all
}

// preflighted is the answer to what a browser asks in advance, "" where no rule
// gives one: that which is going to serve, or the one that this itself leads to.
func (c config) preflighted(q question) string {
	if q.wants == "" {
		return ""
	}
	next := q
	next.method = q.wants
	rule, _ := c.best(next)
	cors := corsOf(rule)
	if cors == nil {
		rule, _ = c.best(q)
		cors = corsOf(rule)
	}
	if cors == nil {
		return ""
	}
	fields := shared(cors, q)
	fields["Vary"] = []string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"}
	if fields.Get("Access-Control-Allow-Origin") == "" {
		return "403 " + pageWords(fields)
	}
	switch {
	case slices.Contains(cors.AllowMethods, "*"):
		fields.Set("Access-Control-Allow-Methods", q.wants)
	case cors.AllowMethods != nil:
		fields.Set("Access-Control-Allow-Methods", strings.Join(cors.AllowMethods, ", "))
	}
	fields.Set("Access-Control-Max-Age", "5")
	return "204 " + pageWords(fields)
}

func corsOf(rule *weirv1.RouteRule) *weirv1.Cors {
	for _, f := range rule.GetFilters() {
		if f.Cors != nil {
			return f.Cors
		}
	}
	return nil
}

// shared is what any answer tells the page that asked.
func shared(cors *weirv1.Cors, q question) http.Header {
	h := http.Header{}
	if cors == nil {
		return h
	}
	all := slices.Contains(cors.AllowOrigins, "*")
	if !all || cors.AllowCredentials {
		h.Set("Vary", "Origin")
	}
	if q.origin == "" || !all && !slices.ContainsFunc(cors.AllowOrigins, func(allowed string) bool { return sameOrigin(allowed, q.origin) }) {
		return h
	}
	h.Set("Access-Control-Allow-Origin", q.origin)
	if all && !cors.AllowCredentials {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if cors.AllowCredentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	return h
}

func sameOrigin(allowed, origin string) bool {
	before, after, wild := strings.Cut(allowed, "*")
	if !wild {
		return allowed == origin
	}
	return len(origin) > len(allowed)-1 && strings.HasPrefix(origin, before) && strings.HasSuffix(origin, after)
}

func (q question) String() string {
	return fmt.Sprintf("%s %s%s%s %s %d %.9q", q.method, q.host, q.path, q.query, words(q.fields), len(q.body), q.body)
}

// pageWords are the fields that CORS is about.
func pageWords(h http.Header) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			all = append(all, name+"="+strings.Join(h[name], "|"))
		}
	}
	return "[" + strings.Join(all, " ") + "]"
}

// words are the fields that modifiers are about.
func words(h http.Header) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(name, "X-") && len(name) == 3 {
			all = append(all, name+"="+strings.Join(h[name], "|"))
		}
	}
	return "[" + strings.Join(all, " ") + "]"
}

// serviceFields are what every service answers with.
func serviceFields() http.Header { return http.Header{"X-A": {"u"}, "X-C": {"v", "w"}} }

// pageFields are what every service says of CORS.
func pageFields() http.Header {
	return http.Header{"Access-Control-Allow-Origin": {"https://the.services.own"}}
}

func answered(rule *weirv1.RouteRule, fields http.Header) string {
	for _, f := range rule.Filters {
		modify(fields, f.ResponseHeaderModifier)
	}
	return words(fields)
}

// modify sets, adds, then removes.
func modify(h http.Header, m *weirv1.HeaderModifier) {
	for _, f := range m.GetSet() {
		h.Set(f.Name, f.Value)
	}
	for _, f := range m.GetAdd() {
		h.Add(f.Name, f.Value)
	}
	for _, name := range m.GetRemove() {
		h.Del(name)
	}
}

// best is the rule that serves a question, and the match by which.
func (c config) best(q question) (rule *weirv1.RouteRule, by *weirv1.RouteMatch) {
	var won []int
	for _, name := range slices.Sorted(maps.Keys(c)) { // of equals, the first by name
		r := c[name]
		host := hostRank(r.Spec.Hostnames, q.host)
		if host < 0 {
			continue
		}
		for _, candidate := range r.Spec.Rules {
			for _, m := range candidate.Matches {
				if !fits(m, q) {
					continue
				}
				rank := []int{host, pathRank(m.Path), len(m.Method), len(m.Headers)}
				if rule == nil || slices.Compare(rank, won) > 0 {
					rule, by, won = candidate, m, rank
				}
			}
		}
	}
	return rule, by
}

// hostRank: an exact hostname before a wildcard before none; -1: none fits.
func hostRank(hostnames []string, host string) int {
	if len(hostnames) == 0 {
		return 0
	}
	best := -1
	for _, h := range hostnames {
		suffix, wild := strings.CutPrefix(h, "*")
		switch {
		case !wild && h == host:
			best = max(best, 1000)
		case wild && strings.HasSuffix(host, suffix) && len(host) > len(suffix):
			best = max(best, len(h))
		}
	}
	return best
}

func pathRank(p *weirv1.PathMatch) int {
	if p.Type == weirv1.PathMatch_EXACT {
		return 1000
	}
	return len(strings.TrimSuffix(p.Value, "/"))
}

func fits(m *weirv1.RouteMatch, q question) bool {
	prefix := strings.TrimSuffix(m.Path.Value, "/")
	path := q.path == m.Path.Value
	if m.Path.Type == weirv1.PathMatch_PATH_PREFIX {
		path = strings.HasPrefix(q.path+"/", prefix+"/")
	}
	for _, h := range m.Headers {
		if strings.Join(q.fields[http.CanonicalHeaderKey(h.Name)], ", ") != h.Value {
			return false
		}
	}
	return path && (m.Method == "" || m.Method == q.method)
}

// replaced is the path that a modifier makes: its segments join with one slash.
func replaced(p *weirv1.PathModifier, by *weirv1.RouteMatch, path string) string {
	switch {
	case p == nil:
		return path
	case p.Type == weirv1.PathModifier_REPLACE_FULL_PATH:
		return p.ReplaceFullPath
	}
	rest := strings.TrimPrefix(path, strings.TrimSuffix(by.Path.Value, "/"))
	return cmp.Or(strings.TrimSuffix(p.ReplacePrefixMatch, "/")+rest, "/")
}

// redirected is where a rule's redirect leads, and by which status.
func redirected(rule *weirv1.RouteRule, by *weirv1.RouteMatch, q question) (location string, status uint32) {
	for _, f := range rule.Filters {
		r := f.RequestRedirect
		if r == nil {
			continue
		}
		scheme, host := cmp.Or(r.Scheme, "http"), cmp.Or(r.Hostname, q.host)
		if r.Port != 0 && !(scheme == "http" && r.Port == 80) && !(scheme == "https" && r.Port == 443) {
			host += fmt.Sprintf(":%d", r.Port)
		}
		return scheme + "://" + host + replaced(r.Path, by, q.path) + q.query, cmp.Or(r.StatusCode, 302)
	}
	return "", 0
}
