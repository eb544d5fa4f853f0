package plugintest

import (
	"fmt"
	"slices"
	"strings"
)

// judge holds what was seen against what the case expects.
func (r *Result) judge(c *Case, s *seen) {
	e := &c.Expect
	switch {
	case e.Verdict != "" && s.verdict != e.Verdict:
		r.problem("verdict: %s, want %s%s", s.verdict, e.Verdict, because(s.err))
	case s.err != nil && !e.Failing():
		r.problem("the plugin failed%s", because(s.err))
	}
	if e.Error != "" && s.err != nil && !strings.Contains(s.err.Error(), e.Error) {
		r.problem("error: %s, want %q in it", s.err, e.Error)
	}
	if s.err == nil && c.Connection == nil {
		r.message("request", &e.Request, &s.request, c.Request.Fields)
		base := c.Response.Fields
		if s.verdict == Answered {
			base = nil
		}
		r.message("response", &e.Response, &s.response, base)
	}
	for _, want := range e.Log {
		if !slices.ContainsFunc(r.Log, func(line string) bool { return strings.Contains(line, want) }) {
			r.problem("log: no line has %q", want)
		}
	}
	r.wrong = len(r.Problems)
	if s.err == nil {
		r.fuel(e)
	}
	r.OK = len(r.Problems) == 0
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *Result) fuel(e *Expectation) {
	if e.Fuel != nil && *e.Fuel != r.Fuel {
		r.problem("fuel: %d, want %d%s", r.Fuel, *e.Fuel, share(r.Fuel, *e.Fuel))
	}
	if e.MaxFuel != nil && r.MostFuel > *e.MaxFuel {
		r.problem("fuel: %d, want at most %d%s", r.MostFuel, *e.MaxFuel, share(r.MostFuel, *e.MaxFuel))
	}
}

func share(got, want uint64) string {
	if want == 0 {
		return ""
	}
	return fmt.Sprintf(" (%+.1f %%)", 100*(float64(got)/float64(want)-1))
}

func (r *Result) message(what string, w *Wanted, got *message, sent []Field) {
	if !got.there {
		if w.any() {
			r.problem("%s: there was none: the plugin answered first", what)
		}
		return
	}
	r.text(what+" method", got.method, w.Method)
	r.text(what+" scheme", got.scheme, w.Scheme)
	r.text(what+" host", got.host, w.Host)
	r.text(what+" path", got.path, w.Path)
	if w.Status != 0 && got.status != w.Status {
		r.problem("%s status: %d, want %d", what, got.status, w.Status)
	}
	if w.Fields != nil {
		r.head(what, w.Fields, got.fields, sent)
	}
	if w.Body != nil && *w.Body != got.body {
		r.problem("%s body: %s", what, difference(got.body, *w.Body, "want"))
	}
	for _, part := range w.Contains {
		if !strings.Contains(got.body, part) {
			r.problem("%s body: %s, want %q in it", what, short(got.body), part)
		}
	}
}

func (w *Wanted) any() bool {
	return w.Method+w.Scheme+w.Host+w.Path != "" || w.Status != 0 || w.Fields != nil || w.Body != nil || w.Contains != nil
}

func (r *Result) text(what, got, want string) {
	if want != "" && got != want {
		r.problem("%s: %q, want %q", what, got, want)
	}
}

// head compares changes. What frames a message is the codec's, and follows from
// the body.
func (r *Result) head(what string, wanted []WantedField, got, sent []Field) {
	named := map[string]bool{"content-length": true, "transfer-encoding": true}
	for _, w := range wanted {
		named[w.Name] = true
		if values := valuesOf(got, w.Name); !slices.Equal(values, w.Values) {
			r.problem("%s header %s: %s, want %s", what, w.Name, list(values), list(w.Values))
		}
	}
	for _, f := range slices.Concat(got, sent) {
		if named[f.Name] {
			continue
		}
		named[f.Name] = true
		if now, before := valuesOf(got, f.Name), valuesOf(sent, f.Name); !slices.Equal(now, before) {
			r.problem("%s header %s: %s, want %s, which is what it was", what, f.Name, list(now), list(before))
		}
	}
}

func valuesOf(fields []Field, name string) (values []string) {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

func list(values []string) string {
	switch len(values) {
	case 0:
		return "none"
	case 1:
		return fmt.Sprintf("%q", values[0])
	}
	return fmt.Sprintf("%q", values)
}

// short is a body in a line.
func short(body string) string {
	const most = 200
	if len(body) > most {
		return fmt.Sprintf("%q… (%d bytes)", body[:most], len(body))
	}
	return fmt.Sprintf("%q", body)
}

// difference shows two bodies: in a line if they have one, else by their lines,
// without those that both begin and end with.
// The second one is called by a word: "want", or "was".
func difference(got, want, word string) string {
	if !strings.Contains(got+want, "\n") {
		return short(got) + ", " + word + " " + short(want)
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	start := 0
	for start < min(len(g), len(w)) && g[start] == w[start] {
		start++
	}
	end := 0
	for end < min(len(g), len(w))-start && g[len(g)-1-end] == w[len(w)-1-end] {
		end++
	}
	var out strings.Builder
	fmt.Fprintf(&out, "it differs at line %d (- %s, + got)", start+1, word)
	show := func(sign string, lines []string) {
		const most = 20
		for i, line := range lines {
			if i == most {
				fmt.Fprintf(&out, "\n%s… %d more lines", sign, len(lines)-most)
				break
			}
			fmt.Fprintf(&out, "\n%s%s", sign, line)
		}
	}
	if start > 0 {
		show("  ", g[start-1:start])
	}
	show("- ", w[start:len(w)-end])
	show("+ ", g[start:len(g)-end])
	return out.String()
}
