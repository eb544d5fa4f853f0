package smuggling

import (
	"embed"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

//go:embed tables
var tables embed.FS

// Family is rows that fill one template.
type Family struct {
	Name string
	Ask  string // what the client asks, in a table of answers
	Rows []Row

	section    string
	sent, want template
}

// Row is one message and the verdict on it.
type Row struct {
	Name, Section, Verdict string
	Sent                   string // up to where the sender stops
	End                    string // "close" or "reset", if the sender then does that
	Want                   string // what is passed on
}

// Requests are the tables of what clients send.
func Requests() ([]Family, error) { return load("requests") }

// Answers are the tables of what upstreams answer.
func Answers() ([]Family, error) { return load("answers") }

func load(which string) (all []Family, err error) {
	dir := path.Join("tables", which)
	files, err := tables.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := tables.ReadFile(path.Join(dir, file.Name()))
		if err != nil {
			return nil, err
		}
		families, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file.Name(), err)
		}
		all = append(all, families...)
	}
	return all, nil
}

// template is lines, one of which may have a hole.
type template []string

const hole = "{}"

func (t template) fill(with string) (string, error) {
	var b strings.Builder
	for _, line := range t {
		if line == hole && with == "" {
			continue
		}
		line = strings.ReplaceAll(line, hole, with)
		whole, ok := strings.CutSuffix(line, `\`)
		text, err := unescape(whole)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		if !ok {
			b.WriteString("\r\n")
		}
	}
	return b.String(), nil
}

func parse(text string) (all []Family, err error) {
	var f *Family
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, begins := strings.CutPrefix(line, "== ")
		switch {
		case begins:
			all = append(all, Family{Name: name})
			f = &all[len(all)-1]
		case f == nil:
			err = fmt.Errorf("no family begins")
		default:
			err = f.take(line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return all, nil
}

func (f *Family) take(line string) error {
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "RFC":
		f.section = rest
	case "ask":
		text, err := unescape(rest)
		f.Ask = text
		return err
	case ">":
		f.sent = append(f.sent, rest)
	case "<":
		f.want = append(f.want, rest)
	default:
		return f.takeRow(line)
	}
	return nil
}

var ownSection = regexp.MustCompile(`^(.*) \[(.*)\]$`)

func (f *Family) takeRow(line string) (err error) {
	columns := strings.SplitN(line, " | ", 4)
	if len(columns) < 3 {
		return fmt.Errorf("a row has three columns: %q", line)
	}
	for i := range columns {
		columns[i] = strings.TrimSpace(columns[i])
		if i > 1 && columns[i] == "-" {
			columns[i] = ""
		}
	}
	r := Row{Verdict: columns[0], Name: columns[1], Section: f.section}
	if own := ownSection.FindStringSubmatch(r.Name); own != nil {
		r.Name, r.Section = own[1], own[2]
	}
	if r.Section == "" {
		return fmt.Errorf("%s: no section of an RFC", r.Name)
	}
	if r.Sent, err = f.sent.fill(columns[2]); err != nil {
		return err
	}
	for _, end := range []string{"close", "reset"} {
		if sent, _, ok := strings.Cut(r.Sent, "{"+end+"}"); ok {
			r.Sent, r.End = sent, end
		}
	}
	if strings.Contains(r.Verdict, "200") || strings.HasSuffix(r.Verdict, "kept") || strings.HasSuffix(r.Verdict, "dropped") {
		if r.Want, err = f.want.fill(columns[len(columns)-1]); err != nil {
			return err
		}
	}
	f.Rows = append(f.Rows, r)
	return nil
}

var (
	escape   = regexp.MustCompile(`\\(x[0-9a-fA-F]{2}|.?)`)
	repeated = regexp.MustCompile(`\{([^{}]+)\*(\d+)\}`)
)

// unescape gives a line of a table the bytes that it stands for.
func unescape(s string) (text string, err error) {
	text = escape.ReplaceAllStringFunc(s, func(e string) string {
		if plain, ok := plainEscapes[e[1:]]; ok {
			return plain
		}
		n, bad := strconv.ParseUint(strings.TrimPrefix(e[1:], "x"), 16, 8)
		if bad != nil || len(e) != 4 {
			err = fmt.Errorf("unknown escape %q", e)
		}
		return string([]byte{byte(n)})
	})
	text = repeated.ReplaceAllStringFunc(text, func(r string) string {
		parts := repeated.FindStringSubmatch(r)
		n, bad := strconv.Atoi(parts[2])
		if bad != nil {
			err = bad
		}
		return strings.Repeat(parts[1], n)
	})
	return text, err
}

var plainEscapes = map[string]string{"r": "\r", "n": "\n", "t": "\t", "v": "\v", "f": "\f", "0": "\x00", "s": " ", `\`: `\`}
