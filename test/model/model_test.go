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
}

// outcomes are the answers that are right; several, where weights decide.
func (c config) outcomes(q question) (all []string) {
	rule, match := c.best(q)
	if rule == nil {
		return []string{"404"}
	}
	if redirect, status := redirected(rule, match, q); redirect != "" {
		return []string{fmt.Sprintf("%d to %s, answer %s", status, redirect, answered(rule, http.Header{}))}
	}
	asked := q
	asked.fields = q.fields.Clone()
	for _, f := range rule.Filters {
		modify(asked.fields, f.RequestHeaderModifier)
	}
	for _, f := range rule.Filters {
		if w := f.UrlRewrite; w != nil {
			asked.host = cmp.Or(w.Hostname, asked.host)
			asked.path = replaced(w.Path, match, asked.path)
		}
	}
	for _, b := range rule.BackendRefs {
		if b.Weight == nil || *b.Weight > 0 {
			all = append(all, fmt.Sprintf("200 by %s: %s, answer %s", b.Name, asked, answered(rule, serviceFields())))
		}
	}
	if all == nil {
		return []string{"500"}
	}
	return all
}

func (q question) String() string {
	return fmt.Sprintf("%s %s%s%s %s", q.method, q.host, q.path, q.query, words(q.fields))
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
