package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// mediaTypes are how a call's Content-Type may begin.
var mediaTypes = []string{"application/json", "application/proto", "application/grpc", "application/connect+"}

// streams are the calls that no single JSON message can hold, and who makes
// them.
var streams = map[string]string{
	weirv1connect.AdminServiceWatchProcedure:     "a watch is a stream: weir watch -o json",
	weirv1connect.ClusterServiceBackupProcedure:  "a backup is a stream: weir cluster backup",
	weirv1connect.ClusterServiceRestoreProcedure: "a backup is a stream: weir cluster restore",
}

// spoken tells who calls by hand what a call looks like, where the protocols
// have an empty answer: curl sends a form unless it is told otherwise.
func spoken(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := strings.ToLower(r.Header.Get("Content-Type"))
		switch {
		case isSpoken(r, kind) || !isKnown(mux, r):
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			explain(w, http.StatusMethodNotAllowed, "a call is a POST of JSON; an empty one is {}")
			return
		case !isMedia(kind):
			w.Header().Set("Accept-Post", "application/json, application/proto, application/grpc, application/grpc-web")
			explain(w, http.StatusUnsupportedMediaType, "say what the body is: Content-Type: application/json")
			return
		default:
			explain(w, http.StatusUnsupportedMediaType, streams[r.URL.Path]+", gRPC, or application/connect+json")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func isMedia(kind string) bool {
	return slices.ContainsFunc(mediaTypes, func(t string) bool { return strings.HasPrefix(kind, t) })
}

// isSpoken: there is nothing to explain, as with nearly every call.
func isSpoken(r *http.Request, kind string) bool {
	return r.Method == http.MethodPost && isMedia(kind) && (streams[r.URL.Path] == "" || !strings.HasPrefix(kind, "application/json"))
}

func isKnown(mux *http.ServeMux, r *http.Request) bool {
	_, pattern := mux.Handler(r)
	return pattern != ""
}

func explain(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "{\"code\":\"unimplemented\",\"message\":%q}\n", message) // who has left needs no answer
}
