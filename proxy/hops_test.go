package proxy_test

import (
	"io"
	"net/http"
	"testing"
)

// Who asks how far it is to somewhere counts proxies: RFC 9110, section 7.6.2.
func TestMaxForwards(t *testing.T) {
	e := startEdge(t, service("s", upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "service "+r.Header.Get("Max-Forwards"))
	})), route("r", "/", "s"))
	for _, c := range []struct {
		method, limit, want string
	}{
		{"OPTIONS", "", "200 service "},
		{"OPTIONS", "3", "200 service 2"},
		{"OPTIONS", "1", "200 service 0"},
		{"OPTIONS", "0", "200 "},
		{"OPTIONS", "99999999999999999999", "200 service 2147483646"},
		{"OPTIONS", "far", "200 service far"},
		{"OPTIONS", "-1", "200 service -1"},
		{"TRACE", "2", "200 service 1"},
		{"TRACE", "0", "501"},
		{"GET", "0", "200 service 0"},
		{"POST", "0", "200 service 0"},
	} {
		t.Run(c.method+" "+c.limit, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+e.addr+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.limit != "" {
				r.Header.Set("Max-Forwards", c.limit)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			got := resp.Status[:3]
			if resp.StatusCode == 200 {
				got += " " + string(body)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
