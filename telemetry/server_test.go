package telemetry

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestServerMetrics(t *testing.T) {
	reading := Server{
		Raft: Raft{Leads: true, HasLeader: true, HasMajority: true, Term: 7, Commit: 12, Applied: 11, Voters: 3, ReachVoters: 2,
			LastContact: -1, Lag: map[string]uint64{"b": 4}, LeaderChanges: 2},
		Log:     Log{First: 1, Last: 12, Bytes: 4096, SyncP50: 160 * time.Microsecond, SyncP99: -1, SnapshotAge: time.Hour},
		Store:   Store{Revision: 9, Resources: map[string]uint64{"Route": 5}},
		Streams: 3,
	}
	handler := NewServerHandler("v1.2.3", func() Server { return reading })
	look := func() string {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
		return rec.Body.String()
	}
	text := look()
	for _, want := range []string{
		"weir_raft_leader 1\n", "weir_raft_term 7\n", `weir_raft_members{role="voter"} 3`, `weir_raft_lag_entries{member="b"} 4`,
		"# TYPE weir_raft_leader_changes_total counter\n", `weir_log_sync_seconds{quantile="0.5"} 0.00016`, "weir_log_snapshot_age_seconds 3600\n",
		"weir_store_revision 9\n", `weir_store_resources{kind="Route"} 5`, "weir_node_streams 3\n", `weir_build_info{version="v1.2.3"} 1`,
		"go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in it:\n%s", want, text)
		}
	}
	for _, unknown := range []string{"weir_raft_last_contact_seconds", `quantile="0.99"`} {
		if strings.Contains(text, unknown) {
			t.Errorf("%s is not known, but is told", unknown)
		}
	}
	reading.Streams = 4
	if !strings.Contains(look(), "weir_node_streams 4\n") {
		t.Error("a second look tells what the first did")
	}
}
