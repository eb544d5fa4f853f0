package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// twoServers are an admin API that works, and before it whatever the handler is.
func twoServers(t *testing.T, first http.Handler) (*session, *admintest.Cluster) {
	t.Helper()
	cluster, err := admintest.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(serve(t, l, cluster))
	bad := httptest.NewServer(first)
	t.Cleanup(bad.Close)
	c := &client{admin: bad.Listener.Addr().String() + "," + l.Addr().String()}
	api, err := c.connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return api, cluster
}

func service(name string) *weirv1.ApplyRequest {
	return &weirv1.ApplyRequest{Resources: []*weirv1.Resource{{Kind: &weirv1.Resource_Service{
		Service: &weirv1.Service{Metadata: &weirv1.Metadata{Name: name}}}}}}
}

// A server that says that nothing was done is passed over, also by a change; the
// one that has answered is asked first from then on.
func TestFailoverFromAServerThatCannotDecide(t *testing.T) {
	asked := 0
	api, cluster := twoServers(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"code":"unavailable","message":"no leader"}`)
	}))
	for _, name := range []string{"a", "b"} {
		if _, err := api.Apply(t.Context(), service(name)); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 1 || len(cluster.Commands()) != 2 {
		t.Errorf("asked %d times, %d commands", asked, len(cluster.Commands()))
	}
	// When neither can, the caller hears of both.
	cluster.Fail(admin.ErrUnavailable)
	_, err := api.Apply(t.Context(), service("c"))
	if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "no leader") || !strings.Contains(err.Error(), "cannot decide now") {
		t.Errorf("got %v", err)
	}
}

// What a silent server may have heard is asked elsewhere when it does no harm,
// and else left to the caller.
func TestFailoverFromASilentServer(t *testing.T) {
	silent := make(chan struct{}, 8)
	api, cluster := twoServers(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		silent <- struct{}{}
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := api.Apply(ctx, service("a"))
		done <- err
	}()
	<-silent
	cancel()
	if err := <-done; err == nil || len(cluster.Commands()) != 0 {
		t.Errorf("a change was made elsewhere: %v, %v", err, cluster.Commands())
	}
	if _, err := api.List(t.Context(), &weirv1.ListRequest{}); err != nil {
		t.Error(err)
	}
	if len(silent) != 1 {
		t.Errorf("the silent server was not asked first")
	}
}

// The only server that is left may be silent for long, as it looks for a leader.
func TestFailoverBackToASilentServer(t *testing.T) {
	asked := 0
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if asked++; asked == 1 {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"code":"unavailable","message":"no leader"}`)
	}))
	defer first.Close()
	c := &client{admin: first.Listener.Addr().String() + ",127.0.0.1:1,127.0.0.1:2"}
	api, err := c.connect(io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = api.List(t.Context(), &weirv1.ListRequest{})
	if asked != 2 || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("asked %d times, got %v", asked, err)
	}
	// It comes first, and what the others said comes once.
	text := err.Error()
	if !strings.HasPrefix(text, "no leader; and ") || strings.Count(text, "127.0.0.1:1:") != 1 || strings.Count(text, "127.0.0.1:2:") != 1 ||
		!strings.Contains(text, "has said nothing for 5s") || strings.Contains(text, "canceled") {
		t.Errorf("got %v", err)
	}
	if hint := hintFor(err); strings.Contains(hint, "runs") {
		t.Errorf("the hint is of another server: %s", hint)
	}
}

// A connection that breaks after the request was sent leaves a change undecided.
func TestFailoverFromABrokenConnection(t *testing.T) {
	api, cluster := twoServers(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	if _, err := api.Apply(t.Context(), service("a")); err == nil || len(cluster.Commands()) != 0 {
		t.Errorf("a change was made elsewhere: %v, %v", err, cluster.Commands())
	}
	if _, err := api.GetStatus(t.Context(), &weirv1.GetStatusRequest{}); err != nil {
		t.Error(err)
	}
}
