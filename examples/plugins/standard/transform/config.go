package transform

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

type config struct {
	Request      headerConfig `json:"request" about:"fields of the request"`
	Response     headerConfig `json:"response" about:"fields of the answer"`
	Query        headerConfig `json:"query" about:"parameters of the query"`
	RequestBody  bodyConfig   `json:"requestBody" about:"JSON that is sent"`
	ResponseBody bodyConfig   `json:"responseBody" about:"JSON that is answered"`
}

type headerConfig struct {
	Rename map[string]string `json:"rename" about:"old name to new"`
	Remove []string          `json:"remove" about:"names"`
	Set    map[string]string `json:"set" about:"replaces"`
	Add    map[string]string `json:"add" about:"appends"`
}

// bodyConfig names members of the top, and JSON paths, which begin with "$".
type bodyConfig struct {
	Rename map[string]string          `json:"rename" about:"old name to new"`
	Remove []string                   `json:"remove" about:"names"`
	Set    map[string]json.RawMessage `json:"set" about:"replaces"`
	// MaxBytes is how large a body may be to be changed. A byte takes about 150
	// units of fuel: the default needs half of a Plugin's default tank.
	MaxBytes int `json:"maxBytes" about:"a longer body passes as it is"`
}

func (c *config) Default() { c.RequestBody.MaxBytes, c.ResponseBody.MaxBytes = 32<<10, 32<<10 }

func (c *config) Validate() error {
	for field, h := range map[string]headerConfig{"request": c.Request, "response": c.Response} {
		for name := range h.names {
			if err := checkName(name); err != nil {
				return fmt.Errorf("%s: %w", field, err)
			}
		}
	}
	switch {
	case c.RequestBody.MaxBytes <= 0:
		return errors.New("requestBody.maxBytes: must be more than 0")
	case c.ResponseBody.MaxBytes <= 0:
		return errors.New("responseBody.maxBytes: must be more than 0")
	}
	return nil
}

// names yields every header name in the configuration.
func (h headerConfig) names(yield func(string) bool) {
	for from, to := range h.Rename {
		if !yield(from) || !yield(to) {
			return
		}
	}
	for _, name := range h.Remove {
		if !yield(name) {
			return
		}
	}
	for _, fields := range []map[string]string{h.Set, h.Add} {
		for name := range fields {
			if !yield(name) {
				return
			}
		}
	}
}

// checkName refuses what is no field name (RFC 9110, section 5.1), and with it
// the pseudo-fields, which decide where a request goes.
func checkName(name string) error {
	const marks = "!#$%&'*+-.^_`|~"
	valid := name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(marks, c))
	})
	if !valid {
		return fmt.Errorf("%q is not a header name", name)
	}
	return nil
}

// pair is one entry of a map, whose order is fixed once.
type pair struct{ name, value string }

func sorted(m map[string]string) []pair {
	pairs := make([]pair, 0, len(m))
	for name, value := range m {
		pairs = append(pairs, pair{name, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return pairs
}
