package introspection

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"

	"github.com/weirmesh/weir/examples/plugins/standard/once"
)

// What the first byte of a kept answer says. After it stand, for a good token, the
// claims that are wanted, each behind its length and a colon ("-" for one that is not
// there); else why it is refused.
const (
	good         = 'g'
	refused      = 'r'
	insufficient = 'i'
)

// maxClaims is how much is kept of what a token says.
const maxClaims = 512

// claims are what the server says of a token (RFC 7662, section 2.2).
type claims map[string]json.RawMessage

// judge reads the server's answer.
func (p *introspection) judge(document []byte, now time.Time) (once.Answer, error) {
	var all claims
	if err := json.Unmarshal(document, &all); err != nil || all == nil {
		return once.Answer{}, errors.New("the answer is not a JSON object")
	}
	var active bool
	if err := json.Unmarshal(all["active"], &active); err != nil {
		return once.Answer{}, errors.New("the answer does not say whether the token is active")
	}
	lasts, spare := seconds(p.config.Cache.Seconds), seconds(p.config.Stale)
	if exp, there := all["exp"]; active && there {
		at, err := strconv.ParseFloat(string(exp), 64)
		if err != nil {
			return once.Answer{}, errors.New("the token's exp is not a time")
		}
		left := time.Duration(max(min(at-float64(now.UnixNano())/1e9, 1e9), 0) * 1e9)
		active, lasts = left > 0, min(lasts, left)
		spare = min(spare, left-lasts)
	}
	verdict, text := p.verdict(active, all)
	if verdict != good {
		lasts, spare = seconds(p.config.Cache.Negative), 0
	}
	return once.Answer{Lasts: lasts, Spare: spare, Text: string(verdict) + text}, nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

func (p *introspection) verdict(active bool, all claims) (verdict byte, text string) {
	c := &p.config
	switch {
	case !active:
		return refused, "the token is not active"
	case len(c.Issuers) > 0 && !slices.Contains(c.Issuers, textOf(all["iss"])):
		return refused, "the token's issuer is not one that is trusted here"
	case len(c.Audiences) > 0 && !slices.ContainsFunc(wordsOf(all["aud"]), func(a string) bool { return slices.Contains(c.Audiences, a) }):
		return refused, "the token is for another audience"
	}
	for name, values := range c.Require {
		if !satisfies(all.at(name), values) {
			return insufficient, "the token's " + name + " does not allow this"
		}
	}
	var kept []byte
	for _, name := range p.Claims() {
		value := all.at(name)
		if value == nil {
			kept = append(kept, '-')
			continue
		}
		text := plain(value)
		kept = append(append(strconv.AppendInt(kept, int64(len(text)), 10), ':'), text...)
	}
	if len(kept) > maxClaims {
		return refused, "the token says more than can be passed on"
	}
	return good, string(kept)
}

// told reads what verdict has written for a good token.
func told(kept string, n int) []sdk.Value {
	values := make([]sdk.Value, n)
	for i := range values {
		if strings.HasPrefix(kept, "-") {
			kept = kept[1:]
			continue
		}
		size, rest, _ := strings.Cut(kept, ":")
		length, err := strconv.Atoi(size)
		if err != nil || length < 0 || length > len(rest) {
			break
		}
		values[i], kept = sdk.Value{Text: rest[:length], There: true}, rest[length:]
	}
	return values
}

// at finds a claim by its name or its JSON pointer; nil: it is not there.
func (c claims) at(name string) json.RawMessage {
	if !strings.HasPrefix(name, "/") {
		return c[name]
	}
	var found json.RawMessage
	for i, step := range strings.Split(name[1:], "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if i > 0 {
			c = nil
			if json.Unmarshal(found, &c) != nil {
				return nil
			}
		}
		if found = c[step]; found == nil {
			return nil
		}
	}
	return found
}

// textOf is a string's text, "" of anything else.
func textOf(value json.RawMessage) string {
	var s string
	_ = json.Unmarshal(value, &s) // which leaves "" there
	return s
}

// wordsOf is an array of strings, or the string that stands for one.
func wordsOf(value json.RawMessage) []string {
	var list []string
	if json.Unmarshal(value, &list) == nil && list != nil {
		return list
	}
	if s := textOf(value); s != "" {
		return []string{s}
	}
	return nil
}

// plain is a claim as text: an array of strings with commas between, anything else that
// is no string as JSON.
func plain(value json.RawMessage) string {
	switch value[0] {
	case '"':
		return textOf(value)
	case '[':
		var list []string
		if json.Unmarshal(value, &list) == nil {
			return strings.Join(list, ",")
		}
	}
	return string(value)
}

// satisfies reports whether a claim has one of the values: it is the value, an array
// with it, or words of which it is one. No values: it must be there.
func satisfies(value json.RawMessage, values []string) bool {
	if value == nil || len(values) == 0 {
		return value != nil
	}
	has := wordsOf(value)
	if len(has) == 1 {
		has = append(has, strings.Fields(has[0])...)
	}
	if len(has) == 0 {
		has = []string{string(value)} // a number, true or false
	}
	return slices.ContainsFunc(values, func(v string) bool { return slices.Contains(has, v) })
}
