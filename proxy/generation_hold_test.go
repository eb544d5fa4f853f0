package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// A long answer keeps what it was begun under, and not all that came and went
// since: a stream of hours would keep every version of every plugin.
func TestALongAnswerKeepsOnlyItsOwnPolicies(t *testing.T) {
	more := make(chan struct{})
	end := sync.OnceFunc(func() { close(more) })
	defer end()
	addr := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/long" {
			<-more
		}
	})
	maker := new(markers)
	e := startEdgeWith(t, with(maker), append(plugins("mark"), service("s", addr), route("r", "/", "s"),
		attach("a", "mark", "Route", "r", weirv1.PolicySpec_AUTHN))...)
	open, err := http.Get(e.url("/long"))
	if err != nil {
		t.Fatal(err)
	}
	alive := func() (n int, text string) {
		maker.mu.Lock()
		defer maker.mu.Unlock()
		return maker.alive, fmt.Sprintf("%d of %d policies are alive", maker.alive, maker.made)
	}
	for range 20 {
		e.apply(route("r", "/", "s"))
		get(t, e.url("/"))
	}
	waitFor(t, func() bool { n, _ := alive(); return n == 2 }, func() string { _, text := alive(); return text + ": the long answer's and the newest" })
	end()
	io.Copy(io.Discard, open.Body)
	open.Body.Close()
	waitFor(t, func() bool { n, _ := alive(); return n == 1 }, func() string { _, text := alive(); return text + " after the long answer" })
}
