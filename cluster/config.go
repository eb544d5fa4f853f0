package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// Config says who this member is. It does not change once the node runs.
type Config struct {
	// Name is the member's, for ever: the log knows it by no other.
	Name string
	// Dir is the node's own directory; it is made where it is missing.
	Dir string
	// Address is where others find this member. Empty: its name.
	Address string
	// Existing: the member is known to have had a log. Where there is none it is
	// lost, and nothing is founded in its place.
	Existing bool
	// Logger hears what an operator must know, and with debug all that Raft
	// says. nil: nothing is heard.
	Logger *slog.Logger

	// Network carries the streams to the other members. nil: there are none, and
	// this one is alone.
	Network Network
	// Found are the voters of a cluster that is to be founded, this member among
	// them, with their addresses. It matters only where there is no log. Each of
	// several must be given the same ones.
	Found []Member
	// Seeds are addresses of other members, for a member that cannot find any by
	// what it knows: it was away, and all have moved.
	Seeds []string
	// Admit is asked by the leader whether a server may come in, which is no
	// member, or was removed. An error tells it why not, and it does not ask
	// again by itself. nil: every server may.
	Admit func(ctx context.Context, name string) error
	// Newest is the newest kind of command that the state machine understands,
	// by its number in weirv1.Command. 0: the newest there is.
	Newest uint32
	// Floor is the highest number that the state machine has shown to anyone and
	// that may not come again: no index given after a Restore is below it. nil:
	// the index is all there is.
	Floor func() uint64

	// Election is how long members wait for a sign of their leader before they
	// elect another. 0: 300 ms.
	Election time.Duration
	// DeadAfter is how long a member may not answer before the leader removes
	// it. 0: 72 hours. Less than 0: it never does.
	DeadAfter time.Duration
	// SnapshotEntries and SnapshotBytes are how much log may gather before it
	// is compacted into a snapshot. 0: 8,192 entries, 64 MiB. It is done earlier
	// where the state is small: when the log has as many bytes as the state, but
	// at least an eighth of SnapshotBytes.
	SnapshotEntries uint64
	SnapshotBytes   int64
	// Reserve is the space on the disk that the log leaves: with less, the
	// member takes no writes. 0: 64 MiB. Less than 0: none.
	Reserve int64

	// trail overrides how many entries stay behind a snapshot, for tests.
	trail uint64
	// free overrides how much space there is, for tests.
	free func(dir string) (bytes int64, known bool)
	// unsafe leaves the disk unsynced, for simulations of what needs none.
	unsafe bool
}

func (c Config) withDefaults() Config {
	if c.Address == "" {
		c.Address = c.Name
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Newest == 0 {
		c.Newest = newestKind()
	}
	if c.Election == 0 {
		c.Election = 300 * time.Millisecond
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = 72 * time.Hour
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 8192
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = 64 << 20
	}
	if c.Reserve == 0 {
		c.Reserve = 64 << 20
	}
	if c.trail == 0 {
		c.trail = trailing
	}
	return c
}

// Validate says what is wrong with the settings.
func (c Config) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("a member needs a name")
	case c.Dir == "":
		return errors.New("a member needs a directory")
	case c.Election < 0 || c.Election > 0 && c.Election < 10*time.Millisecond:
		return fmt.Errorf("an election timeout of %s is too short: 10ms is the least", c.Election)
	case c.SnapshotBytes < 0:
		return fmt.Errorf("a log cannot be bounded by %d bytes", c.SnapshotBytes)
	}
	return c.validateFound()
}

func (c Config) validateFound() error {
	if len(c.Found) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, m := range c.Found {
		if m.Name == "" || seen[m.Name] {
			return fmt.Errorf("the members that found a cluster need a name each: %q does not do", m.Name)
		}
		seen[m.Name] = true
	}
	switch {
	case !seen[c.Name]:
		return fmt.Errorf("the members that found a cluster lack this one, %s", c.Name)
	case len(c.Found) > 1 && c.Network == nil:
		return errors.New("a cluster of several members needs a network")
	}
	return nil
}

// trailing is how many entries stay in the log behind a snapshot, for members
// that lag a little.
const trailing = 4096

func (c Config) raft(notify chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.Name)
	conf.Logger = newLogger(c.Logger)
	conf.NotifyCh = notify
	// One millisecond more than is meant, for electAlone to take away.
	conf.HeartbeatTimeout = c.Election + time.Millisecond
	conf.ElectionTimeout = c.Election + time.Millisecond
	conf.LeaderLeaseTimeout = c.Election * 5 / 6
	conf.CommitTimeout = min(conf.CommitTimeout, c.Election/4)
	conf.SnapshotInterval = 30 * time.Second
	conf.SnapshotThreshold = c.SnapshotEntries
	conf.TrailingLogs = c.trail
	// A member that is removed stays a follower: its owner decides when it ends.
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	return conf
}
