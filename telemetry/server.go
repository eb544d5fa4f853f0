package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Server is what a member of the control cluster measures, as it is when
// somebody looks. What is not known is not shown: a duration of less than
// nothing, and of a disk any number that is 0.
type Server struct {
	Raft  Raft
	Log   Log
	Store Store
	// Streams is how many proxies are connected to this member.
	Streams int
}

// Raft is the agreement between the members, as one of them knows it.
type Raft struct {
	Leads, HasLeader, HasMajority  bool
	Term, Commit, Applied          uint64
	Voters, NonVoters, ReachVoters int
	LastContact                    time.Duration // with the leader
	Lag                            map[string]uint64
	LeaderChanges                  uint64
}

// Log is the log on this member's disk.
type Log struct {
	First, Last      uint64
	Bytes            uint64
	SyncP50, SyncP99 time.Duration
	SnapshotIndex    uint64
	SnapshotAge      time.Duration
}

// Store is the state on this member's disk.
type Store struct {
	Revision  uint64
	Resources map[string]uint64 // by kind
	Bytes     uint64
}

// NewServerHandler serves /metrics of a member; read is asked at each look.
func NewServerHandler(version string, read func() Server) http.Handler {
	r := newRegistry(version)
	r.MustRegister(&serverCollector{read: read})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// serverCollector turns one reading into series. It describes nothing ahead, so
// that the list of series stands in one place, collect.
type serverCollector struct{ read func() Server }

// Describe implements prometheus.Collector.
func (*serverCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *serverCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	out := series{ch}
	out.raft(s.Raft)
	out.log(s.Log)
	out.gauge("weir_store_revision", "The newest revision that this member's state shows.", float64(s.Store.Revision))
	out.size("weir_store_bytes", "Size of this member's state on its disk.", s.Store.Bytes)
	for kind, n := range s.Store.Resources {
		out.gauge("weir_store_resources", "Resources declared, by kind.", float64(n), "kind", kind)
	}
	out.gauge("weir_node_streams", "Proxies connected to this member.", float64(s.Streams))
}

type series struct{ ch chan<- prometheus.Metric }

func (s series) raft(r Raft) {
	s.gauge("weir_raft_leader", "1 where this member leads.", truth(r.Leads))
	s.gauge("weir_raft_has_leader", "1 where this member knows a leader.", truth(r.HasLeader))
	s.gauge("weir_raft_has_majority", "1 where this member knows that most voters agree.", truth(r.HasMajority))
	s.gauge("weir_raft_term", "The term of the leader.", float64(r.Term))
	s.gauge("weir_raft_commit_index", "The last entry known to be agreed on.", float64(r.Commit))
	s.gauge("weir_raft_applied_index", "The last entry that this member's state holds.", float64(r.Applied))
	s.gauge("weir_raft_members", "Members of the cluster, by role.", float64(r.Voters), "role", "voter")
	s.gauge("weir_raft_members", "Members of the cluster, by role.", float64(r.NonVoters), "role", "nonvoter")
	s.gauge("weir_raft_reachable_voters", "Voters that this member reaches, itself included.", float64(r.ReachVoters))
	s.seconds("weir_raft_last_contact_seconds", "Since this member last heard of the leader.", r.LastContact)
	for member, lag := range r.Lag {
		s.gauge("weir_raft_lag_entries", "Entries that a member has still to get, as the leader knows.", float64(lag), "member", member)
	}
	s.counter("weir_raft_leader_changes_total", "How often this member saw another leader.", r.LeaderChanges)
}

func (s series) log(l Log) {
	s.size("weir_log_first_index", "The oldest entry in the log.", l.First)
	s.size("weir_log_last_index", "The newest entry in the log.", l.Last)
	s.size("weir_log_bytes", "Size of the log on its disk.", l.Bytes)
	const sync = "How long entries took to reach the disk, lately."
	s.seconds("weir_log_sync_seconds", sync, l.SyncP50, "quantile", "0.5")
	s.seconds("weir_log_sync_seconds", sync, l.SyncP99, "quantile", "0.99")
	s.size("weir_log_snapshot_index", "The entry that the newest snapshot ends with.", l.SnapshotIndex)
	s.seconds("weir_log_snapshot_age_seconds", "Since the newest snapshot was taken.", l.SnapshotAge)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s series) seconds(name, help string, d time.Duration, labels ...string) {
	if d >= 0 {
		s.gauge(name, help, d.Seconds(), labels...)
	}
}

func (s series) size(name, help string, n uint64) {
	if n > 0 {
		s.gauge(name, help, float64(n))
	}
}

func (s series) gauge(name, help string, value float64, labels ...string) {
	s.send(name, help, prometheus.GaugeValue, value, labels)
}

func (s series) counter(name, help string, value uint64) {
	s.send(name, help, prometheus.CounterValue, float64(value), nil)
}

// send takes labels as name, value, name, value.
func (s series) send(name, help string, kind prometheus.ValueType, value float64, labels []string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
}
