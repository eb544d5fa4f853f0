package plugintest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// fields says how the keys of a mapping are read.
type fields map[string]func(value *yaml.Node, at string)

func (p *parser) note(n *yaml.Node, at, format string, args ...any) {
	const most = 100
	if len(p.problems) < most {
		p.problems = append(p.problems, manifest.Problem{File: p.file, Line: n.Line, Column: n.Column,
			Field: strings.TrimPrefix(at, "."), Message: fmt.Sprintf(format, args...)})
	}
}

// target follows an alias to what it stands for.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// enter counts a node, so that aliases cannot multiply.
func (p *parser) enter(n *yaml.Node, at string) bool {
	if p.left--; p.left == -1 {
		p.note(n, at, "the aliases of this file repeat too much")
	}
	return p.left >= 0
}

func (p *parser) mapping(n *yaml.Node, at string, known fields) {
	n = target(n)
	if !p.enter(n, at) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.note(n, at, "%s; a mapping is expected", describe(n))
		return
	}
	seen := map[string]int{}
	list := p.members(n, at)
	for i := 0; i+1 < len(list); i += 2 {
		key, value := list[i], list[i+1]
		read, field := known[key.Value], at+"."+key.Value
		first, twice := seen[key.Value]
		seen[key.Value] = key.Line
		switch {
		case twice:
			p.note(key, field, "is there twice; first on line %d", first)
		case read == nil:
			p.note(key, field, "%s", unknownField(key.Value, known))
		default:
			read(value, field)
		}
	}
}

// members are a mapping's keys and values in turn: those of another one, which it names
// by <<, as far as it does not have them itself.
func (p *parser) members(n *yaml.Node, at string) (list []*yaml.Node) {
	var base []*yaml.Node
	own := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() != "!!merge" {
			own[key.Value] = true
			list = append(list, key, value)
			continue
		}
		if value = target(value); value.Kind != yaml.MappingNode {
			p.note(key, at+".<<", "%s; a mapping is expected", describe(value))
		} else if p.enter(value, at) {
			base = append(base, p.members(value, at)...)
		}
	}
	for i := 0; i+1 < len(base); i += 2 {
		if !own[base[i].Value] {
			own[base[i].Value] = true
			list = append(list, base[i], base[i+1])
		}
	}
	return list
}

func unknownField(name string, known fields) string {
	names := slices.Sorted(maps.Keys(known))
	if near := resource.Nearest(name, names); near != "" {
		return fmt.Sprintf("unknown field; did you mean %q?", near)
	}
	return "unknown field; expected " + strings.Join(names, ", ")
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "is a mapping"
	case yaml.SequenceNode:
		return "is a list"
	}
	if n.Tag == "!!null" {
		return "is empty"
	}
	return fmt.Sprintf("is %q", n.Value)
}

func (p *parser) list(n *yaml.Node, at string, each func(n *yaml.Node, at string)) {
	n = target(n)
	if !p.enter(n, at) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.note(n, at, "%s; a list is expected", describe(n))
		return
	}
	for i, element := range n.Content {
		each(element, fmt.Sprintf("%s[%d]", at, i))
	}
}

// scalar reads a value as it is written: 1.10 stays 1.10.
func (p *parser) scalar(n *yaml.Node, at string) string {
	n = target(n)
	if !p.enter(n, at) {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		p.note(n, at, "%s; a string is expected", describe(n))
		return ""
	}
	if n.Tag == "!!binary" {
		var b []byte
		if err := n.Decode(&b); err != nil {
			p.note(n, at, "%v", err)
		}
		return string(b)
	}
	if n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

func (p *parser) text(to *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		if *to = p.scalar(n, at); *to == "" {
			p.note(n, at, "is empty")
		}
	}
}

// texts reads one string, or a list of them.
func (p *parser) texts(to *[]string) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		if target(n).Kind == yaml.ScalarNode {
			*to = []string{p.scalar(n, at)}
			return
		}
		p.list(n, at, func(n *yaml.Node, at string) { *to = append(*to, p.scalar(n, at)) })
	}
}

func (p *parser) number(to *int, least, most int) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		v, err := strconv.Atoi(p.scalar(n, at))
		if err != nil || v < least || v > most {
			p.note(n, at, "%s; a number from %d to %d is expected", describe(target(n)), least, most)
			return
		}
		*to = v
	}
}

func (p *parser) fuel(to **uint64) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		v, err := strconv.ParseUint(p.scalar(n, at), 10, 64)
		if err != nil {
			p.note(n, at, "%s; an amount of fuel is expected", describe(target(n)))
			return
		}
		*to = &v
	}
}

func (p *parser) time(to *time.Time) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		v, err := time.Parse(time.RFC3339, p.scalar(n, at))
		if err != nil || v.Year() < 1971 || v.Year() > 2200 {
			p.note(n, at, "%s; a time such as 2026-01-01T12:00:00Z is expected", describe(target(n)))
			return
		}
		*to = v
	}
}

func (p *parser) duration(to *time.Duration) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		v, err := time.ParseDuration(p.scalar(n, at))
		if err != nil || v < 0 || v > 24*time.Hour {
			p.note(n, at, "%s; a duration such as 500ms is expected", describe(target(n)))
			return
		}
		*to = v
	}
}

var defaultClient = netip.MustParseAddrPort("192.0.2.1:40000")

func (p *parser) client(to *netip.AddrPort) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		text := p.scalar(n, at)
		if addr, err := netip.ParseAddr(text); err == nil {
			*to = netip.AddrPortFrom(addr, defaultClient.Port())
			return
		}
		v, err := netip.ParseAddrPort(text)
		if err != nil {
			p.note(n, at, "%s; an address such as 192.0.2.1 is expected", describe(target(n)))
			return
		}
		*to = v
	}
}

// headers reads {name: value} and {name: [value, value]}.
func (p *parser) headers(to *[]Field) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		p.eachHeader(n, at, func(name string, value *yaml.Node, at string) {
			var values []string
			p.texts(&values)(value, at)
			for _, v := range values {
				*to = append(*to, Field{name, v})
			}
		})
	}
}

// wantedHeaders also reads {name: null}: it must not be there.
func (p *parser) wantedHeaders(to *[]WantedField) func(*yaml.Node, string) {
	return func(n *yaml.Node, at string) {
		*to = []WantedField{}
		p.eachHeader(n, at, func(name string, value *yaml.Node, at string) {
			w := WantedField{Name: name}
			if target(value).Tag != "!!null" {
				p.texts(&w.Values)(value, at)
			}
			*to = append(*to, w)
		})
	}
}

func (p *parser) eachHeader(n *yaml.Node, at string, each func(name string, value *yaml.Node, at string)) {
	n = target(n)
	if !p.enter(n, at) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.note(n, at, "%s; a mapping of names to values is expected", describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name := strings.ToLower(key.Value)
		switch first, twice := seen[name]; {
		case twice:
			p.note(key, at+"."+key.Value, "is there twice; first on line %d: give a list of values", first)
		case name == "" || strings.HasPrefix(name, ":"):
			p.note(key, at+"."+key.Value, "is no header's name: method, path, host, scheme and status have fields of their own")
		default:
			each(name, n.Content[i+1], at+"."+key.Value)
		}
		seen[name] = key.Line
	}
}
