package admin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

func durationOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// until reads a watch up to the bookmark of a revision.
func until(t *testing.T, stream weirv1connect.AdminServiceWatchClientStream, revision uint64) string {
	t.Helper()
	var seen []string
	for {
		event, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, strings.TrimSpace(fmt.Sprintf("%s@%d %s", event.GetType(), event.GetRevision(), event.GetRef().GetName())))
		if event.GetType() == weirv1.WatchResponse_BOOKMARK && event.GetRevision() >= revision {
			return strings.Join(seen, ", ")
		}
	}
}

func (a *api) watch(t *testing.T, req *weirv1.WatchRequest) weirv1connect.AdminServiceWatchClientStream {
	t.Helper()
	stream, err := a.Watch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	return stream
}

func TestWatchBeginsWithWhatIsThere(t *testing.T) {
	a := start(t, nil)
	revision := a.apply(t, shop).GetRevision()
	stream := a.watch(t, &weirv1.WatchRequest{})
	if got, want := until(t, stream, revision), "RESET@1, PUT@1 public, PUT@1 books, PUT@1 books, BOOKMARK@1"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	a.apply(t, "kind: Service\nmetadata: {name: more}")
	if got, want := until(t, stream, 2), "PUT@2 more, BOOKMARK@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Service", Name: "more"}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := until(t, stream, 3), "DELETE@3 more, BOOKMARK@3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWatchResumes(t *testing.T) {
	a := start(t, nil)
	revision := a.apply(t, shop).GetRevision()
	a.apply(t, "kind: Service\nmetadata: {name: more}")
	if got, want := until(t, a.watch(t, &weirv1.WatchRequest{AfterRevision: revision}), 2), "PUT@2 more, BOOKMARK@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := until(t, a.watch(t, &weirv1.WatchRequest{AfterRevision: 9999}), 2), "RESET@2, "; !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s first, as the revision is not known", got, want)
	}
}

// A bookmark comes also for what the caller does not want to see: without it a
// resumed watch would go back ever further.
func TestWatchIsFiltered(t *testing.T) {
	a := start(t, nil)
	revision := a.apply(t, shop).GetRevision()
	stream := a.watch(t, &weirv1.WatchRequest{Kinds: []string{"routes"}, Tenant: "*"})
	if got, want := until(t, stream, revision), "RESET@1, PUT@1 books, BOOKMARK@1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.apply(t, "kind: Service\nmetadata: {name: more}")
	if got, want := until(t, stream, 2), "BOOKMARK@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	other := a.watch(t, &weirv1.WatchRequest{Tenant: "acme"})
	if got, want := until(t, other, 2), "RESET@2, BOOKMARK@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	wrong, err := a.Watch(t.Context(), &weirv1.WatchRequest{Kinds: []string{"Pod"}})
	if err == nil {
		_, err = wrong.Receive()
		wrong.Close()
	}
	expectError(t, err, connect.CodeInvalidArgument, `kinds[0]: there is no kind "Pod"`)
}
