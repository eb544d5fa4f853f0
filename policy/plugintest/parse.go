package plugintest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/weirmesh/weir/resource/manifest"
)

// maxCases bounds a file of cases, maxNodes what aliases may make of it.
const (
	maxCases = 8 << 20
	maxNodes = 200_000
	maxDepth = 64
)

// Parse reads a file of cases. The error is manifest.Problems: all that is wrong
// with it, with places.
func Parse(file string, data []byte) ([]Case, error) {
	p := &parser{file: file, left: maxNodes}
	if len(data) > maxCases {
		return nil, manifest.Problems{{File: file, Message: fmt.Sprintf("is longer than %d MiB, the most that a file of cases may have", maxCases>>20)}}
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, manifest.Problems{{File: file, Message: "is empty: write cases: and a list"}}
	case err != nil:
		return nil, manifest.Problems{syntaxProblem(file, err)}
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, manifest.Problems{{File: file, Line: second.Line, Message: "a file of cases is one document"}}
	}
	if len(document.Content) == 1 {
		p.cases(document.Content[0])
	}
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return p.all, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxProblem(file string, err error) manifest.Problem {
	text, line := err.Error(), 0
	if found := yamlLine.FindStringSubmatch(text); found != nil {
		line, _ = strconv.Atoi(found[1])
		text = text[len(found[0]):]
	}
	return manifest.Problem{File: file, Line: line, Message: "not YAML: " + text}
}

// parser walks the nodes of one file.
type parser struct {
	file     string
	left     int // nodes
	all      []Case
	problems manifest.Problems
}

func (p *parser) cases(root *yaml.Node) {
	shared, list := Case{Plugin: defaultPlugin}, (*yaml.Node)(nil)
	p.mapping(root, "", fields{
		"plugin": p.text(&shared.Plugin),
		"config": func(n *yaml.Node, at string) { shared.Config = p.json(n, at) },
		"cases":  func(n *yaml.Node, _ string) { list = n },
	})
	if list == nil {
		if len(p.problems) == 0 {
			p.note(root, "", "has no cases: write cases: and a list")
		}
		return
	}
	names := map[string]int{}
	p.list(list, "cases", func(n *yaml.Node, at string) {
		c := Case{File: p.file, Line: n.Line, Plugin: shared.Plugin, Config: shared.Config, Time: defaultTime, Repeat: 1, Client: defaultClient}
		p.one(n, at, &c)
		if first, twice := names[c.Name]; twice && c.Name != "" {
			p.note(n, at+".name", "%q is there twice; first on line %d", c.Name, first)
		}
		names[c.Name] = c.Line
		p.all = append(p.all, c)
	})
	if len(p.all) == 0 && len(p.problems) == 0 {
		p.note(list, "cases", "there are none")
	}
}

func (p *parser) one(n *yaml.Node, at string, c *Case) {
	c.edit = newEdit(target(n))
	c.Request = Message{Method: "GET", Scheme: "http", Host: "plugin.example", Path: "/"}
	c.Response = Message{Status: 200}
	p.mapping(n, at, fields{
		"name":       p.text(&c.Name),
		"config":     func(n *yaml.Node, at string) { c.Config = p.json(n, at) },
		"time":       p.time(&c.Time),
		"every":      p.duration(&c.Every),
		"repeat":     p.number(&c.Repeat, 1, 100_000),
		"client":     p.client(&c.Client),
		"request":    func(n *yaml.Node, at string) { p.message(n, at, &c.Request, true) },
		"response":   func(n *yaml.Node, at string) { p.message(n, at, &c.Response, false) },
		"connection": p.connection(&c.Connection),
		"calls": func(n *yaml.Node, at string) {
			p.list(n, at, func(n *yaml.Node, at string) { c.Calls = append(c.Calls, p.call(n, at)) })
		},
		"services":                    p.texts(&c.Services),
		"allowOnHeadersStopIteration": p.flag(&c.StopIteration),
		"ticks":                       p.number(&c.Ticks, 0, 100_000),
		"expect":                      func(n *yaml.Node, at string) { p.expect(n, at, &c.Expect) },
	})
	p.forConnection(n, at, c)
	if c.Name == "" {
		p.note(n, at+".name", "is missing: say what the case shows")
	}
}

// flag reads true.
func (p *parser) flag(to *bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		if *to = p.scalar(n, at) == "true"; !*to {
			p.note(n, at, "is true, or left out")
		}
	}
}

func (p *parser) call(n *yaml.Node, at string) (c Call) {
	c.Response = Message{Status: 200}
	answers := 0
	p.mapping(n, at, fields{
		"service":  p.text(&c.Service),
		"request":  func(n *yaml.Node, at string) { p.wanted(n, at, &c.Request, true) },
		"response": func(n *yaml.Node, at string) { answers++; p.message(n, at, &c.Response, false) },
		"error":    func(n *yaml.Node, at string) { answers++; p.text(&c.Error)(n, at) },
		"timeout":  func(n *yaml.Node, at string) { answers++; p.flag(&c.Timeout)(n, at) },
	})
	if c.Service == "" {
		p.note(n, at+".service", "is missing: say what is called")
	}
	if answers > 1 {
		p.note(n, at, "a call has one of response, error and timeout")
	}
	return c
}

func (p *parser) message(n *yaml.Node, at string, m *Message, request bool) {
	var body *yaml.Node
	known := fields{
		"headers":  p.headers(&m.Fields),
		"trailers": p.headers(&m.Trailers),
		"body":     func(n *yaml.Node, at string) { body = n; m.Chunks = []string{p.scalar(n, at)} },
		"chunks": func(n *yaml.Node, at string) {
			if body != nil {
				p.note(n, at, "a message has body or chunks, not both")
			}
			body, m.Chunks = n, []string{}
			p.list(n, at, func(n *yaml.Node, at string) {
				chunk := p.scalar(n, at)
				if chunk == "" {
					p.note(n, at, "a chunk is not empty")
				}
				m.Chunks = append(m.Chunks, chunk)
			})
		},
	}
	if request {
		known["method"], known["path"] = p.text(&m.Method), p.text(&m.Path)
		known["host"], known["scheme"] = p.text(&m.Host), p.text(&m.Scheme)
	} else {
		known["status"] = p.number(&m.Status, 200, 599)
	}
	p.mapping(n, at, known)
	if len(m.Chunks) == 1 && m.Chunks[0] == "" {
		m.Chunks = nil
	}
	if len(m.Trailers) > 0 && m.Chunks == nil {
		p.note(n, at+".trailers", "trailers follow a body: there is none")
	}
}

func (p *parser) expect(n *yaml.Node, at string, e *Expectation) {
	p.mapping(n, at, fields{
		"verdict": func(n *yaml.Node, at string) {
			e.Verdict = Verdict(p.scalar(n, at))
			switch e.Verdict {
			case Continued, Answered, Closed, Failed, Refused:
			default:
				p.note(n, at, "unknown value %q; expected continue, answer, close, fail or refuse", e.Verdict)
			}
		},
		"error":    p.text(&e.Error),
		"request":  func(n *yaml.Node, at string) { p.wanted(n, at, &e.Request, true) },
		"response": func(n *yaml.Node, at string) { p.wanted(n, at, &e.Response, false) },
		"log":      p.texts(&e.Log),
		"fuel":     p.fuel(&e.Fuel),
		"maxFuel":  p.fuel(&e.MaxFuel),
	})
	if e.Error != "" && !e.Failing() {
		p.note(n, at+".error", "goes with verdict: fail, or refuse")
	}
}

func (p *parser) wanted(n *yaml.Node, at string, w *Wanted, request bool) {
	known := fields{
		"headers":      p.wantedHeaders(&w.Fields),
		"bodyContains": p.texts(&w.Contains),
		"body":         func(n *yaml.Node, at string) { text := p.scalar(n, at); w.Body = &text },
	}
	if request {
		known["method"], known["path"] = p.text(&w.Method), p.text(&w.Path)
		known["host"], known["scheme"] = p.text(&w.Host), p.text(&w.Scheme)
	} else {
		known["status"] = p.number(&w.Status, 100, 599)
	}
	p.mapping(n, at, known)
}

// json reads what a policy's configuration may be: anything.
func (p *parser) json(n *yaml.Node, at string) json.RawMessage {
	before := len(p.problems)
	value := p.free(n, at, 0)
	if len(p.problems) > before {
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		p.note(n, at, "is not JSON: %v", err)
		return nil
	}
	if string(text) == "null" {
		return nil
	}
	return text
}

func (p *parser) free(n *yaml.Node, at string, depth int) any {
	n = target(n)
	if p.left--; p.left < 0 || depth > maxDepth {
		if p.left >= -1 || depth > maxDepth {
			p.note(n, at, "is too large, or nested too deep")
		}
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out, base := map[string]any{}, map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].ShortTag() == "!!merge" { // <<: *config, and what differs
				base, _ = p.free(n.Content[i+1], at, depth+1).(map[string]any)
				continue
			}
			key := target(n.Content[i]).Value
			if _, twice := out[key]; twice {
				p.note(n.Content[i], at+"."+key, "is there twice")
			}
			out[key] = p.free(n.Content[i+1], at+"."+key, depth+1)
		}
		for key, value := range base {
			if _, there := out[key]; !there {
				out[key] = value
			}
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for i, element := range n.Content {
			out = append(out, p.free(element, fmt.Sprintf("%s[%d]", at, i), depth+1))
		}
		return out
	}
	var value any
	if err := n.Decode(&value); err != nil {
		p.note(n, at, "%v", err)
	}
	return value
}
