package apikey

import (
	"net/url"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// place is where a key was found.
type place uint8

const (
	nowhere place = iota
	inHeader
	inQuery
	inCookie
)

// find returns the key of a request. An empty one is none.
func (c *config) find(r *sdk.Request) (string, place) {
	if c.Header != "" {
		if key := r.Header.Get(c.Header); key != "" {
			return key, inHeader
		}
	}
	if c.Query != "" {
		if key := parameter(r.Path(), c.Query); key != "" {
			return key, inQuery
		}
	}
	if c.Cookie != "" {
		for name, value := range r.Header.All() {
			if name != "cookie" && !strings.EqualFold(name, "cookie") {
				continue
			}
			if key := cookie(value, c.Cookie); key != "" {
				return key, inCookie
			}
		}
	}
	return "", nowhere
}

// hide takes the key out of the request. That a key in the query changes the path
// makes the route be chosen anew, which is the same one unless it asks for the key.
func (c *config) hide(r *sdk.Request, where place) {
	switch where {
	case inHeader:
		r.Header.Del(c.Header)
	case inQuery:
		r.Header.Set(":path", withoutParameter(r.Path(), c.Query))
	case inCookie:
		var left []string
		for name, value := range r.Header.All() {
			if strings.EqualFold(name, "cookie") {
				if value = withoutCookie(value, c.Cookie); value != "" {
					left = append(left, value)
				}
			}
		}
		r.Header.Del("cookie")
		if len(left) > 0 {
			r.Header.Set("cookie", strings.Join(left, "; "))
		}
	}
}

func parameter(path, name string) string {
	_, query, _ := strings.Cut(path, "?")
	for part := range strings.SplitSeq(query, "&") {
		if key, value, _ := strings.Cut(part, "="); key == name {
			if plain, err := url.QueryUnescape(value); err == nil {
				return plain
			}
		}
	}
	return ""
}

func withoutParameter(path, name string) string {
	before, query, _ := strings.Cut(path, "?")
	var left []string
	for part := range strings.SplitSeq(query, "&") {
		if key, _, _ := strings.Cut(part, "="); key != name {
			left = append(left, part)
		}
	}
	if len(left) == 0 {
		return before
	}
	return before + "?" + strings.Join(left, "&")
}

func cookie(line, name string) string {
	for part := range strings.SplitSeq(line, ";") {
		if key, value, _ := strings.Cut(strings.TrimSpace(part), "="); key == name {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

func withoutCookie(line, name string) string {
	var left []string
	for part := range strings.SplitSeq(line, ";") {
		part = strings.TrimSpace(part)
		if key, _, _ := strings.Cut(part, "="); key != name && part != "" {
			left = append(left, part)
		}
	}
	return strings.Join(left, "; ")
}
