package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// Some servers take for a dot segment what RFC 3986 does not: behind an encoded
// slash or a backslash, or with a parameter. A route for /public must not be a way
// to their /admin.
func TestDotSegmentsInDisguise(t *testing.T) {
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	e := startEdge(t, service("s", addr), route("r", "/public", "s"))
	for _, c := range []struct {
		path   string
		status int
		sent   string
	}{
		{"/public/..;/admin", 400, ""},
		{"/public/.;a=b/admin", 400, ""},
		{"/public/..%2fadmin", 400, ""},
		{"/public/a%2F..%2F..%2fadmin", 400, ""},
		{"/public/%2e%2e%2fadmin", 400, ""},
		{`/public/..\admin`, 400, ""},
		{`/public\..\admin`, 400, ""},
		{"/public/a%5c..%5Cadmin", 400, ""},
		{"/public/%2e%2e;x=1/admin", 400, ""},
		{"/public/..", 404, ""},
		{"/public/a/../b", 200, "/public/b"},
		{"/public/a%2fb", 200, "/public/a%2fb"},
		{"/public/a;x=1/b", 200, "/public/a;x=1/b"},
		{"/public/...;x/..b", 200, "/public/...;x/..b"},
		{"/public/a?b=/..;/..%2f", 200, "/public/a?b=/..;/..%2f"},
		{"/public/1..2%2f3", 200, "/public/1..2%2f3"},
	} {
		resp, body := dial(t, e.addr).exchange(fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\n\r\n", c.path))
		if resp.StatusCode != c.status || c.status == 200 && body != c.sent {
			t.Errorf("%s: %d %q", c.path, resp.StatusCode, body)
		}
	}
}
