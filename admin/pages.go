package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// maxBehind is how many entries a member that serves may have still to apply:
// under load there are always some.
const maxBehind = 1000

// readiness says why this member should not be asked; nil: it may be.
func (s *service) readiness(ctx context.Context) error {
	status, err := s.Servers.Status(ctx)
	if err != nil {
		return err
	}
	if why := whyUndecided(status); why != "" {
		return errors.New(why)
	}
	if behind := int64(status.GetCommitIndex() - status.GetAppliedIndex()); behind > maxBehind {
		return fmt.Errorf("%d entries behind", behind)
	}
	for _, m := range status.GetMembers() {
		if m.GetName() == status.GetMember() && m.GetState() == weirv1.ClusterMember_CATCHING_UP {
			return errors.New("it has just joined, and is being sent what it lacks")
		}
	}
	return nil
}

// pages are what machines look at without a token: whether the process lives,
// whether it is ready, and what it measures. The guard does not see them.
func (s *service) pages(mux *http.ServeMux) {
	alive := func(w http.ResponseWriter, _ *http.Request) { page(w, http.StatusOK, "ok") }
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /livez", alive)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.readiness(r.Context()); err != nil {
			page(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		page(w, http.StatusOK, "ready")
	})
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // who has left needs no answer
}
