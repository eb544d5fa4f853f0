package node

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/identity"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// A server tells an operator how it is, and what it measures.
func TestServerTellsHowItIs(t *testing.T) {
	cfg := devConfig(t, t.TempDir(), "")
	run(t, cfg).ready()
	base := "http://" + cfg.Server.Admin
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	api := weirv1connect.NewClusterServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, base)))

	res, err := api.GetStatus(t.Context(), &weirv1.ClusterServiceGetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	s := res.GetStatus()
	if s.GetLeader() != "dev" || s.GetMember() != "dev" || !s.GetMajority() || s.GetVoters() != 1 || len(s.GetMembers()) != 1 {
		t.Fatalf("got %v", s)
	}
	if m := s.GetMembers()[0]; m.GetState() != weirv1.ClusterMember_LEADER || m.GetStreams() != 1 || m.GetVersion() != "test" {
		t.Errorf("got %v", m)
	}
	doctor, err := api.Doctor(t.Context(), &weirv1.DoctorRequest{})
	if err != nil || len(doctor.GetChecks()) < 4 {
		t.Fatalf("got %v, %v", doctor, err)
	}
	for _, check := range doctor.GetChecks() {
		if check.GetResult() == weirv1.DoctorCheck_FAIL && check.GetLayer() != weirv1.DoctorCheck_DISK {
			t.Errorf("got %v", check)
		}
	}
	_, err = api.RemoveMember(t.Context(), &weirv1.RemoveMemberRequest{Name: "dev"})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("got %v", err)
	}
	_, err = api.TransferLeadership(t.Context(), &weirv1.TransferLeadershipRequest{To: "b"})
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("got %v", err)
	}
	if status, body := get(t, base+"/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	_, metrics := get(t, base+"/metrics")
	for _, want := range []string{"weir_raft_leader 1\n", `weir_raft_members{role="voter"} 1`, "weir_node_streams 1\n", `weir_build_info{version="test"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("there is no %q in the metrics", want)
		}
	}
}

func TestChecksOfThisHost(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	if c := checkCertificate("a", now.Add(time.Hour), now); c.GetResult() != weirv1.DoctorCheck_OK {
		t.Errorf("got %v", c)
	}
	if c := checkCertificate("a", now, now); c.GetResult() != weirv1.DoctorCheck_FAIL || c.GetAdvice() == "" {
		t.Errorf("got %v", c)
	}
	if c := checkDisk("a", filepath.Join(t.TempDir(), "none")); c.GetResult() != weirv1.DoctorCheck_FAIL {
		t.Errorf("got %v", c)
	}
	if c := checkDisk("a", t.TempDir()); !strings.Contains(c.GetMessage(), "GiB free") {
		t.Errorf("got %v", c)
	}
}

func TestKeysAreRefusedInWords(t *testing.T) {
	for cause, reason := range map[error]admin.Reason{
		identity.ErrNeeded: admin.ReasonState, identity.ErrRotating: admin.ReasonState,
		identity.ErrRotatingKey: admin.ReasonState, identity.ErrNoKey: admin.ReasonNotFound,
	} {
		var refused *admin.Refused
		if err := keysOutcome(fmt.Errorf("drop key: %w", cause)); !errors.As(err, &refused) || refused.Violations[0].Reason != reason {
			t.Errorf("%v: got %v", cause, err)
		}
	}
}

func TestNewKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring")
	if err := NewKeyring(path); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(path)
	if err != nil || len(made) == 0 {
		t.Fatalf("got %d bytes, %v", len(made), err)
	}
	if err := NewKeyring(path); err == nil {
		t.Error("it was made anew")
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(made) {
		t.Errorf("it changed: %v", err)
	}
}
