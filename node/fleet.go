package node

import (
	"context"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/fleet"
	"github.com/weirmesh/weir/nodeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// newFleet has this server tell the others of its proxies and of itself, and
// hear of theirs.
func (s *server) newFleet(p *process, version string) *fleet.Fleet {
	return fleet.New(fleet.Config{
		Identity: s.identity, Dialer: s.dialer, Name: s.name, Logger: p.log.With("part", "fleet"),
		Members: func() (others []fleet.Member, changed <-chan struct{}) {
			for _, m := range s.cluster.Members() {
				if m.Name != s.name && m.Address != "" {
					others = append(others, fleet.Member{Name: m.Name, Address: m.Address})
				}
			}
			return others, nil
		},
		Local: func() (*weirv1.MemberReport, <-chan struct{}) { return s.report(version) },
	})
}

// report is what this server says of itself.
func (s *server) report(version string) (*weirv1.MemberReport, <-chan struct{}) {
	statuses, changed := s.api.Proxies().Statuses()
	m := &weirv1.MemberReport{
		Member: s.own(version, s.cluster.Status()), AdminAddress: s.adminAddress, Now: timestamppb.Now(),
		Proxies: statuses, NotAfter: timestamppb.New(s.identity.NotAfter()),
	}
	if free, size, err := room(s.dir); err == nil {
		m.DiskFree, m.DiskSize = free, size
	}
	return m, changed
}

// connected tells whether a proxy of that name has a stream open at any server.
func (s *server) connected(name string) bool {
	statuses, _ := s.fleet.Statuses()
	return slices.ContainsFunc(statuses, func(p *weirv1.ProxyStatus) bool { return p.GetName() == name && p.GetConnected() })
}

// nodeHandler answers everything that is asked on the node port.
func (s *server) nodeHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(s.fleet.Handler())
	if s.founders != nil {
		mux.Handle(helloPath, s.founders)
	}
	mux.Handle("/", s.api)
	return mux
}

// probeTimeout bounds a doctor's look at one server.
const probeTimeout = 5 * time.Second

// Doctor looks at this host, at what the others say of themselves, and at the
// way to each of them.
func (v servers) Doctor(ctx context.Context) ([]*weirv1.DoctorCheck, error) {
	checks := []*weirv1.DoctorCheck{checkDisk(v.s.name, v.s.dir), checkCertificate(v.s.name, v.s.identity.NotAfter(), time.Now())}
	reports := v.s.fleet.Reports()
	addresses := map[string]string{}
	for _, m := range v.s.cluster.Members() {
		addresses[m.Name] = m.Address
	}
	type found struct {
		name  string
		probe nodeport.Probe
	}
	results := make(chan found, len(reports))
	for _, r := range reports {
		go func() { // ends with its context, and is waited for below
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			results <- found{r.Name, v.s.dialer.Probe(ctx, addresses[r.Name], nodeport.TrustMember(v.s.identity, r.Name))}
		}()
	}
	probes := map[string]nodeport.Probe{}
	for range reports {
		f := <-results
		probes[f.name] = f.probe
	}
	return append(checks, doctorChecks(v.s.name, reports, probes, v.s.lifetime, time.Now())...), nil
}
