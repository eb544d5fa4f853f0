package proxy_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
)

// Trailers reach clients of HTTP/2 and HTTP/3 behind a body of known length, too,
// and when they come later than its last byte.
func TestTrailersBehindAKnownLength(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "body")
		if r.URL.Path != "/at-once" {
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond) // so that the edge has sent the body
		}
		if r.URL.Path != "/none" {
			w.Header().Set("X-Sum", "4")
		}
	}
	for name, s := range map[string]*weirv1.Service{"HTTP/2": h2Server(t, false, answer), "HTTP/3": h3Server(t, answer)} {
		_, by3 := startH3(t, func(*proxy.Config) {}, s, route("r", "/", "s"))
		e2 := startEdge(t, s, route("r", "/", "s"))
		for protocol, client := range map[string]*http.Client{"HTTP/1.1": nil, "HTTP/2": e2.h2Client(false), "HTTP/3": by3} {
			for path, want := range map[string]string{"/at-once": "4", "/late": "4", "/none": ""} {
				t.Run(name+" to "+protocol+path, func(t *testing.T) {
					for range 3 {
						if client == nil { // has no room for them behind a length
							if _, body := get(t, e2.url(path)); body != "body" {
								t.Errorf("got %q", body)
							}
							continue
						}
						req, _ := http.NewRequestWithContext(t.Context(), "GET", "https://shop.example"+path, nil)
						if protocol == "HTTP/2" {
							req.URL.Scheme = "http"
						}
						resp, body := do(t, client, req)
						if body != "body" || resp.Trailer.Get("X-Sum") != want {
							t.Errorf("got %q, trailers %v, want %q", body, resp.Trailer, want)
						}
					}
				})
			}
		}
	}
}
