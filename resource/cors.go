package resource

import (
	"fmt"
	"strconv"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func (c *check) cors(at Path, f *weirv1.Cors) {
	if f == nil {
		return
	}
	list := func(name string, values []string, wildcard bool, syntax func(string) string) {
		at := at.Field(name)
		c.count(at, len(values), 0, maxEntries, "entry")
		seen := map[string]bool{}
		for i, v := range values {
			switch {
			case v == "*" && wildcard && len(values) > 1:
				c.add(at, `"*" is every one, so it stands alone`)
			case v == "*" && wildcard:
			default:
				c.syntax(at.Index(i), syntax(v))
			}
			c.unique(seen, at.Index(i), strings.ToLower(v), "the entry")
		}
	}
	if len(f.GetAllowOrigins()) == 0 {
		c.add(at.Field("allowOrigins"), `needs at least one origin, such as "https://shop.example", or "*"`)
	}
	list("allowOrigins", f.GetAllowOrigins(), true, checkOrigin)
	list("allowMethods", f.GetAllowMethods(), true, func(s string) string {
		if s == "" {
			return "is empty; give a method such as PUT"
		}
		return checkMethod(s)
	})
	list("allowHeaders", f.GetAllowHeaders(), true, checkHeaderName)
	list("exposeHeaders", f.GetExposeHeaders(), true, checkHeaderName)
	if f.GetMaxAge() > 1<<31-1 {
		c.add(at.Field("maxAge"), "must be at most %d seconds, not %d", 1<<31-1, f.GetMaxAge())
	}
}

// checkOrigin: scheme, host and perhaps a port, in the syntax of the Gateway
// API. A "*" at the front of the host stands for anything, dots included.
func checkOrigin(s string) string {
	const form = `"https://shop.example", "https://*.shop.example:8443" or "*"`
	scheme, host, ok := strings.Cut(s, "://")
	switch {
	case s == "":
		return "is empty; write " + form
	case !ok:
		return fmt.Sprintf("%q has no scheme; write %s", s, form)
	case scheme != "http" && scheme != "https":
		return fmt.Sprintf("%q: the scheme must be http or https, not %q", s, scheme)
	case strings.ContainsAny(host, "/?#@"):
		return fmt.Sprintf("%q is more than an origin: write %s, without a path", s, form)
	}
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && !strings.HasSuffix(host, "]") {
		port := host[colon+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return fmt.Sprintf("%q: the port must be from 1 to 65535, not %q", s, port)
		}
		host = host[:colon]
	}
	name := strings.TrimPrefix(strings.TrimPrefix(host, "*"), ".")
	switch lower := strings.ToLower(host); {
	case host == "*" || isAddress(host):
		return ""
	case lower != host:
		return fmt.Sprintf("%q must be lower case: %q", s, scheme+"://"+strings.ToLower(strings.TrimPrefix(s, scheme+"://")))
	case strings.Contains(name, "*"):
		return fmt.Sprintf("%q: a wildcard stands at the front of the host, such as \"https://*.shop.example\"", s)
	case !isDomain(name):
		return fmt.Sprintf("%q: %q is not a host", s, host)
	}
	return ""
}
