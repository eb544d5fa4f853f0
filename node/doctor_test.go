package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/fleet"
	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestDoctorChecks(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	bad := errors.New("bad")
	reached := nodeport.Probe{Addresses: []string{"192.0.2.1:7400"}, RTT: time.Millisecond}
	way := []string{"DNS OK", "TCP OK", "UDP OK", "TLS OK"}
	for name, test := range map[string]struct {
		// change makes of a member and a way that are well what they are here.
		change func(*fleet.Report, *nodeport.Probe)
		want   []string
	}{
		"all is well": {func(*fleet.Report, *nodeport.Probe) {}, append(way, "CLOCK OK", "DISK OK", "DISK OK")},
		"its name is not found": {func(_ *fleet.Report, p *nodeport.Probe) { *p = nodeport.Probe{DNS: bad} },
			[]string{"DNS FAIL"}},
		"it is dead": {func(r *fleet.Report, p *nodeport.Probe) { p.TCP, p.UDP, r.Age, r.Err = bad, bad, time.Hour, bad },
			[]string{"DNS OK", "TCP FAIL"}},
		"UDP is dropped": {func(_ *fleet.Report, p *nodeport.Probe) { p.UDP = bad },
			[]string{"DNS OK", "TCP OK", "UDP WARN", "TLS OK", "CLOCK OK", "DISK OK", "DISK OK"}},
		"TCP is dropped": {func(_ *fleet.Report, p *nodeport.Probe) { p.TCP = bad },
			[]string{"DNS OK", "TCP WARN", "UDP OK", "TLS OK", "CLOCK OK", "DISK OK", "DISK OK"}},
		"it is of another cluster": {func(r *fleet.Report, p *nodeport.Probe) { p.TLS, r.Report = errors.Join(bad, bad), nil },
			[]string{"DNS OK", "TCP OK", "UDP OK", "TLS FAIL"}},
		"it does not know the question": {func(r *fleet.Report, _ *nodeport.Probe) { r.Report, r.Age, r.Err = nil, time.Hour, bad },
			[]string{"DNS OK", "TCP OK", "UDP OK", "VERSION FAIL"}},
		"its clock is off":      {func(r *fleet.Report, _ *nodeport.Probe) { r.Skew = -2 * time.Second }, append(way, "CLOCK WARN", "DISK OK", "DISK OK")},
		"its clock is far off":  {func(r *fleet.Report, _ *nodeport.Probe) { r.Skew = time.Minute }, append(way, "CLOCK FAIL", "DISK OK", "DISK OK")},
		"its clock is near":     {func(r *fleet.Report, _ *nodeport.Probe) { r.Skew = time.Second }, append(way, "CLOCK OK", "DISK OK", "DISK OK")},
		"its disk is slow":      {func(r *fleet.Report, _ *nodeport.Probe) { r.Report.Member.LogSyncP99 = durationpb.New(time.Second) }, append(way, "CLOCK OK", "DISK WARN", "DISK OK")},
		"its disk is full":      {func(r *fleet.Report, _ *nodeport.Probe) { r.Report.DiskFree = 1 << 20 }, append(way, "CLOCK OK", "DISK OK", "DISK FAIL")},
		"its disk is near full": {func(r *fleet.Report, _ *nodeport.Probe) { r.Report.DiskFree = 1 << 30 }, append(way, "CLOCK OK", "DISK OK", "DISK WARN")},
		"its certificate is not renewed": {func(r *fleet.Report, _ *nodeport.Probe) { r.Report.NotAfter = timestamppb.New(now.Add(time.Minute)) },
			[]string{"DNS OK", "TCP OK", "UDP OK", "TLS WARN", "CLOCK OK", "DISK OK", "DISK OK"}},
		"its certificate has run out": {func(r *fleet.Report, _ *nodeport.Probe) { r.Report.NotAfter = timestamppb.New(now) },
			[]string{"DNS OK", "TCP OK", "UDP OK", "TLS FAIL", "CLOCK OK", "DISK OK", "DISK OK"}},
		"it tells little": {func(r *fleet.Report, _ *nodeport.Probe) { r.Report = &weirv1.MemberReport{} },
			[]string{"DNS OK", "TCP OK", "UDP OK", "CLOCK OK"}},
	} {
		r, p := wellReport("b", now), reached
		test.change(&r, &p)
		checks := doctorChecks("a", []fleet.Report{r}, map[string]nodeport.Probe{"b": p}, identity.LeafLifetime, now)
		requireChecks(t, name, checks, test.want)
	}
}

func wellReport(name string, now time.Time) fleet.Report {
	return fleet.Report{Name: name, Age: time.Second, Report: &weirv1.MemberReport{
		Member:   &weirv1.ClusterMember{Name: name, LogSyncP99: durationpb.New(time.Millisecond)},
		DiskFree: 50 << 30, DiskSize: 100 << 30, NotAfter: timestamppb.New(now.Add(12 * time.Hour)),
	}}
}

// requireChecks wants checks as "LAYER RESULT", and advice where there is
// something to do.
func requireChecks(t *testing.T, name string, checks []*weirv1.DoctorCheck, want []string) {
	t.Helper()
	var got []string
	for _, c := range checks {
		got = append(got, fmt.Sprintf("%s %s", c.GetLayer(), c.GetResult()))
		if well := c.GetResult() == weirv1.DoctorCheck_OK; well != (c.GetAdvice() == "") || c.GetMessage() == "" || c.GetSubject() == "" {
			t.Errorf("%s: got %v", name, c)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

// Where the way was not tried, what was heard has to do.
func TestDoctorWithoutProbes(t *testing.T) {
	now := time.Now()
	well, never := wellReport("c", now), fleet.Report{Name: "b", Age: time.Minute}
	checks := doctorChecks("a", []fleet.Report{well, never}, nil, identity.LeafLifetime, now)
	requireChecks(t, "one is well, one is not", checks, []string{"TCP FAIL", "TLS OK", "CLOCK OK", "DISK OK", "DISK OK"})
	if checks[0].GetSubject() != "b" || checks[1].GetSubject() != "c" {
		t.Errorf("got %v", checks)
	}
	if all := doctorChecks("a", nil, nil, identity.LeafLifetime, now); len(all) != 0 {
		t.Errorf("got %v", all)
	}
}
