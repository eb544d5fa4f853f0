package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weirmesh/weir/fleet"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

const (
	// Clocks that differ by more than a second confuse who reads logs; by more
	// than half a minute, certificates that are new are not good yet.
	skewWarn = time.Second
	skewFail = 30 * time.Second
	// slowSync is what a disk is slow from: every change waits for it.
	slowSync = 100 * time.Millisecond
	// silence is how long a member may say nothing; see package fleet.
	silence = 5 * time.Second
	// renewalLate is the part of its life that a certificate has left that should
	// have been renewed long before.
	renewalLate = 24
)

// doctorChecks judges the other members, by what they have said to this one and
// by how far the way to them goes, as far as that was tried. Of a member that
// cannot be reached it says at which layer the way ends, and nothing of what
// lies above.
func doctorChecks(self string, reports []fleet.Report, probes map[string]nodeport.Probe, lifetime time.Duration, now time.Time) []*weirv1.DoctorCheck {
	var checks []*weirv1.DoctorCheck
	for _, r := range reports {
		d := diagnosis{self: self, member: r.Name, lifetime: lifetime}
		probe, tried := probes[r.Name]
		if d.way(probe, tried, r) {
			d.report(r, now)
		}
		checks = append(checks, d.checks...)
	}
	slices.SortStableFunc(checks, func(a, b *weirv1.DoctorCheck) int {
		return cmp.Or(cmp.Compare(a.GetLayer(), b.GetLayer()), cmp.Compare(a.GetSubject(), b.GetSubject()))
	})
	return checks
}

// diagnosis is the checks of one member.
type diagnosis struct {
	self, member string
	lifetime     time.Duration // of certificates
	checks       []*weirv1.DoctorCheck
}

func (d *diagnosis) say(layer weirv1.DoctorCheck_Layer, result weirv1.DoctorCheck_Result, advice, format string, args ...any) {
	d.checks = append(d.checks, &weirv1.DoctorCheck{
		Layer: layer, Subject: d.member, Result: result, Message: fmt.Sprintf(format, args...), Advice: advice,
	})
}

// ends says that the way ends here.
func (d *diagnosis) ends(layer weirv1.DoctorCheck_Layer, advice, format string, args ...any) bool {
	d.say(layer, weirv1.DoctorCheck_FAIL, advice, format, args...)
	return false
}

// way tells whether the member can be reached.
func (d *diagnosis) way(p nodeport.Probe, tried bool, r fleet.Report) bool {
	silent := r.Report == nil || r.Age >= silence
	switch {
	case !tried && silent:
		return d.ends(weirv1.DoctorCheck_TCP, "see that it runs: systemctl status weir, on its host",
			"%s has not heard of it for %s: %s", d.self, r.Age.Round(time.Second), why(r))
	case !tried:
		return true
	case p.DNS != nil:
		return d.ends(weirv1.DoctorCheck_DNS, "see that the name of its host is in the DNS or in /etc/hosts, on the host of "+d.self, "%v", p.DNS)
	}
	d.say(weirv1.DoctorCheck_DNS, weirv1.DoctorCheck_OK, "", "it is at %s", strings.Join(p.Addresses, ", "))
	if p.TCP != nil && p.UDP != nil {
		return d.ends(weirv1.DoctorCheck_TCP, "see that it runs, and that no firewall stands between it and "+d.self,
			"nothing answers, over TCP or UDP: %s", oneLine(p.TCP))
	}
	d.transport(weirv1.DoctorCheck_TCP, p.TCP, p.RTT, "open the node port for TCP too: it is the way for whom UDP does not reach")
	d.transport(weirv1.DoctorCheck_UDP, p.UDP, p.RTT, "open the node port for UDP too: QUIC is quicker than the TCP that is used now")
	if p.TLS != nil {
		return d.ends(weirv1.DoctorCheck_TLS, "see that both are of one cluster, and that the clocks of both hosts are right", "%s", oneLine(p.TLS))
	}
	if silent {
		return d.ends(weirv1.DoctorCheck_VERSION, "see its log: it may be starting, or of another version",
			"its port answers, but it has not said how it is for %s: %s", r.Age.Round(time.Second), why(r))
	}
	return true
}

func (d *diagnosis) transport(layer weirv1.DoctorCheck_Layer, err error, rtt time.Duration, advice string) {
	if err != nil {
		d.say(layer, weirv1.DoctorCheck_WARN, advice, "%s", oneLine(err))
		return
	}
	d.say(layer, weirv1.DoctorCheck_OK, "", "answers %s, %s away", d.self, rtt.Round(time.Microsecond))
}

// report judges what the member says of itself.
func (d *diagnosis) report(r fleet.Report, now time.Time) {
	if notAfter := r.Report.GetNotAfter(); notAfter != nil {
		d.certificate(notAfter.AsTime(), now)
	}
	d.clock(r.Skew)
	if p99 := r.Report.GetMember().GetLogSyncP99(); p99 != nil {
		d.sync(p99.AsDuration())
	}
	if r.Report.GetDiskSize() > 0 {
		d.checks = append(d.checks, checkRoom(d.member, "", r.Report.GetDiskFree(), r.Report.GetDiskSize()))
	}
}

func (d *diagnosis) certificate(notAfter, now time.Time) {
	check := checkCertificate(d.member, notAfter, now)
	if check.GetResult() == weirv1.DoctorCheck_OK && notAfter.Sub(now) < d.lifetime/renewalLate {
		check.Result, check.Advice = weirv1.DoctorCheck_WARN, "look in its log for why it was not renewed"
	}
	d.checks = append(d.checks, check)
}

func (d *diagnosis) clock(skew time.Duration) {
	where := "ahead of"
	if skew < 0 {
		where = "behind"
	}
	off, advice := skew.Abs(), "let a time service such as chrony set the clocks of both hosts"
	switch {
	case off > skewFail:
		d.say(weirv1.DoctorCheck_CLOCK, weirv1.DoctorCheck_FAIL, advice, "its clock is %s %s that of %s", off.Round(time.Millisecond), where, d.self)
	case off > skewWarn:
		d.say(weirv1.DoctorCheck_CLOCK, weirv1.DoctorCheck_WARN, advice, "its clock is %s %s that of %s", off.Round(time.Millisecond), where, d.self)
	default:
		d.say(weirv1.DoctorCheck_CLOCK, weirv1.DoctorCheck_OK, "", "its clock agrees with that of %s", d.self)
	}
}

func (d *diagnosis) sync(p99 time.Duration) {
	text := fmt.Sprintf("of 100 writes 99 reach the disk within %s", p99.Round(10*time.Microsecond))
	if p99 > slowSync {
		d.say(weirv1.DoctorCheck_DISK, weirv1.DoctorCheck_WARN, "give the log a quicker disk, or see who else writes to this one: every change waits for it", "%s", text)
		return
	}
	d.say(weirv1.DoctorCheck_DISK, weirv1.DoctorCheck_OK, "", "%s", text)
}

// why a member has not been heard of.
func why(r fleet.Report) string {
	if r.Err == nil {
		return "it has not answered yet"
	}
	return oneLine(r.Err)
}

// oneLine is an error that may be several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// What is little room on a disk: a tenth of it and 10 GiB, or next to none.
const (
	littleRoom = 10 << 30
	noRoom     = 256 << 20
)

// checkRoom judges the space on the disk of a directory.
func checkRoom(member, dir string, free, all uint64) *weirv1.DoctorCheck {
	check := &weirv1.DoctorCheck{Layer: weirv1.DoctorCheck_DISK, Subject: member, Result: weirv1.DoctorCheck_OK}
	check.Message = fmt.Sprintf("%.1f of %.1f GiB free", float64(free)/(1<<30), float64(all)/(1<<30))
	if dir != "" {
		check.Message += " for " + dir
	}
	switch {
	case free < noRoom:
		check.Result = weirv1.DoctorCheck_FAIL
	case free < littleRoom && free < all/10:
		check.Result = weirv1.DoctorCheck_WARN
	}
	if check.Result != weirv1.DoctorCheck_OK {
		check.Advice = "make room there: without it the log takes no more changes"
	}
	return check
}
