package transform

import (
	"fmt"
	"strconv"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// documentEdit is a bodyConfig made ready: the members of its top by this package,
// which knows nothing but them, and what stands at JSON paths by the host.
type documentEdit struct {
	top      *bodyEdit
	below    *sdk.JSONEdits
	maxBytes int
}

// newDocumentEdit returns nil when there is nothing to do.
func newDocumentEdit(c bodyConfig) (*documentEdit, error) {
	top, paths := c.split()
	e := &documentEdit{maxBytes: c.MaxBytes}
	var err error
	if e.top, err = newBodyEdit(top); err != nil {
		return nil, err
	}
	var list sdk.JSONEdit
	for _, p := range sorted(paths.Rename) {
		list.Rename(p.name, p.value)
	}
	for _, path := range paths.Remove {
		list.Remove(path)
	}
	values := map[string]string{}
	for path, value := range paths.Set {
		values[path] = string(value)
	}
	for _, p := range sorted(values) {
		list.Set(p.name, []byte(p.value))
	}
	if len(paths.Rename)+len(paths.Remove)+len(paths.Set) > 0 {
		edits, err := list.Compile()
		if err != nil {
			return nil, fmt.Errorf("read paths: %w", err)
		}
		e.below = &edits
	}
	if e.top == nil && e.below == nil {
		return nil, nil
	}
	return e, nil
}

// split parts members of the top from paths, which begin with "$".
func (c bodyConfig) split() (top, paths bodyConfig) {
	for _, name := range c.Remove {
		into := &top
		if strings.HasPrefix(name, "$") {
			into = &paths
		}
		into.Remove = append(into.Remove, name)
	}
	top.Rename, paths.Rename = part(c.Rename)
	top.Set, paths.Set = part(c.Set)
	return top, paths
}

func part[V any](m map[string]V) (top, paths map[string]V) {
	top, paths = map[string]V{}, map[string]V{}
	for name, value := range m {
		if strings.HasPrefix(name, "$") {
			paths[name] = value
		} else {
			top[name] = value
		}
	}
	return top, paths
}

// possible reports whether a body with such a head can be changed.
func (e *documentEdit) possible(h sdk.Header) bool {
	if h.Get("content-encoding") != "" || h.Get("content-range") != "" {
		return false
	}
	if n, err := strconv.Atoi(h.Get("content-length")); err == nil && n > e.maxBytes {
		return false
	}
	return isJSON(h.Get("content-type"))
}

// announce takes from a head what will not be true any more: the length, and what
// speaks of these very bytes.
func announce(h sdk.Header) {
	for _, name := range [...]string{"content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"} {
		h.Del(name)
	}
}

// isJSON knows application/json and its relatives, "…+json".
func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// show looks at what has come of a body, and says whether it is to be held.
func (e *documentEdit) show(x *sdk.Exchange, b sdk.Body, end bool) sdk.Action {
	if b.Len() > e.maxBytes {
		x.State = nil // What was held goes out as it is, and so does the rest.
		return sdk.Continue
	}
	if !end {
		return sdk.Hold
	}
	if e.top != nil {
		if changed, ok := e.top.apply(b.Bytes()); ok {
			b.Replace(changed)
		}
	}
	if e.below != nil {
		if err := e.below.Apply(b); err != nil && sdk.Logs(sdk.LevelDebug) {
			sdk.Debugf("change a body: %v", err)
		}
	}
	x.State = nil
	return sdk.Continue
}
