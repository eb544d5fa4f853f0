package transform

import (
	"net/url"
	"slices"
	"strings"
)

// queryEdit is a headerConfig made ready, for the parameters of a query.
type queryEdit struct {
	rename []pair
	// gone are those that are removed or set.
	gone []string
	// end is what is set and added, escaped: "a=1&b=2".
	end string
}

// newQueryEdit returns nil when there is nothing to do.
func newQueryEdit(c headerConfig) *queryEdit {
	if len(c.Rename)+len(c.Remove)+len(c.Set)+len(c.Add) == 0 {
		return nil
	}
	q := &queryEdit{rename: sorted(c.Rename), gone: slices.Clone(c.Remove)}
	var end []string
	for _, p := range sorted(c.Set) {
		q.gone = append(q.gone, p.name)
		end = append(end, url.QueryEscape(p.name)+"="+url.QueryEscape(p.value))
	}
	for _, p := range sorted(c.Add) {
		end = append(end, url.QueryEscape(p.name)+"="+url.QueryEscape(p.value))
	}
	q.end = strings.Join(end, "&")
	return q
}

// apply returns the path with its query changed. What is not concerned stays as it
// was written, in its order.
func (q *queryEdit) apply(path string) string {
	before, query, _ := strings.Cut(path, "?")
	out := make([]byte, 0, len(path)+len(q.end)+1)
	out = append(out, before...)
	mark := byte('?')
	put := func(parts ...string) {
		out = append(out, mark)
		mark = '&'
		for _, p := range parts {
			out = append(out, p...)
		}
	}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		written, value, valued := strings.Cut(part, "=")
		name, err := url.QueryUnescape(written)
		if err != nil {
			put(part)
			continue
		}
		renamed := q.renamed(name)
		switch {
		case slices.Contains(q.gone, renamed):
		case renamed == name:
			put(part)
		case valued:
			put(url.QueryEscape(renamed), "=", value)
		default:
			put(url.QueryEscape(renamed))
		}
	}
	if q.end != "" {
		put(q.end)
	}
	return string(out)
}

func (q *queryEdit) renamed(name string) string {
	for _, p := range q.rename {
		if p.name == name {
			return p.value
		}
	}
	return name
}
