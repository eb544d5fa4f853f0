//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/hosts"
	"github.com/weirmesh/weir/test/powercut"
)

// options of a cluster. The zero value is a plain one.
type options struct {
	spares int      // hosts beside those of the first members, for whoever comes later
	flags  []string // of every server, at each start
	// disks gives every member a disk whose power can be cut.
	disks bool
	// relayed has members reach one another by way of relays.
	relayed bool
	// expect founds the cluster by all of its members at once.
	expect bool
	// small has the last member keep its data on a file system of so many bytes,
	// or of its data only what is in smallDir.
	small    int
	smallDir string
	// program is what the first members run, instead of the build under test.
	program string
}

// A cluster is its members, and a host outside of it from which it is used.
type cluster struct {
	t       *testing.T
	seed    uint64
	options options
	hosts   hosts.Hosts        // the first members', then spares
	outside *hosts.Host        // where clients are
	relays  map[string]*relays // by member

	token, ca string // of the admin API

	mu      sync.Mutex
	members []*member
	loads   int
}

// form makes a cluster of n members and waits until each of them votes.
func form(t *testing.T, n int, o options) *cluster {
	t.Helper()
	if raceEnabled {
		t.Skip("what is under test is another program, which is not built for the race detector")
	}
	h := hosts.New(t, n+o.spares+1)
	t.Logf("to repeat: go test ./test/cluster -all -run '^%s$' -seed %d", t.Name(), *baseSeed)
	c := newCluster(t, h[:n+o.spares], h[n+o.spares], o)
	keyring := ""
	if o.expect {
		keyring = filepath.Join(t.TempDir(), "keyring")
		c.must(c.command("cluster", "keys", "new", keyring))
	}
	c.addMembers(n, keyring)
	if o.expect {
		c.foundTogether()
	} else {
		c.foundAndJoin()
	}
	c.awaitVoters()
	return c
}

func newCluster(t *testing.T, members hosts.Hosts, outside *hosts.Host, o options) *cluster {
	name := fnv.New64a()
	name.Write([]byte(t.Name()))
	return &cluster{t: t, seed: *baseSeed ^ name.Sum64(), options: o, hosts: members, outside: outside, relays: map[string]*relays{}}
}

// addMembers makes the first members, with a copy of a keyring if there is one.
func (c *cluster) addMembers(n int, keyring string) {
	c.t.Helper()
	for i := range n {
		m := c.member(i)
		m.program = c.options.program
		if i == n-1 {
			m.space, m.spaceAt = c.options.small, c.options.smallDir
		}
		c.members = append(c.members, m)
		if keyring == "" {
			continue
		}
		key, err := os.ReadFile(keyring)
		if err == nil {
			err = os.WriteFile(filepath.Join(m.data, "keyring"), key, 0o600)
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

// foundAndJoin has the first member found the cluster, and the others join it.
func (c *cluster) foundAndJoin() {
	c.t.Helper()
	first, others := c.members[0], c.members[1:]
	first.start("--bootstrap")
	first.ready()
	c.readAdminEnv(first)
	for _, m := range others {
		m.join(first)
	}
	for _, m := range others {
		m.ready()
	}
}

// foundTogether has all members, who have the same key, found the cluster.
func (c *cluster) foundTogether() {
	c.t.Helper()
	for _, m := range c.members {
		m.start("--bootstrap-expect", fmt.Sprint(len(c.members)), "--join", addresses(m.others()))
	}
	for _, m := range c.members {
		m.ready()
	}
	c.readAdminEnv(c.withAdminEnv())
}

// withAdminEnv is a founder that has left an admin.env.
func (c *cluster) withAdminEnv() *member {
	c.t.Helper()
	i := slices.IndexFunc(c.members, func(m *member) bool {
		_, err := os.Stat(filepath.Join(m.data, "admin.env"))
		return err == nil
	})
	if i < 0 {
		c.t.Fatal("no founder has left an admin.env")
	}
	return c.members[i]
}

// readAdminEnv takes from a member what it takes to use the admin API.
func (c *cluster) readAdminEnv(m *member) {
	c.t.Helper()
	text, err := os.ReadFile(m.inside("admin.env"))
	if err != nil {
		c.t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[name] = strings.Trim(value, "'")
		}
	}
	ca, err := os.ReadFile(m.root() + env["WEIR_CA"])
	if err != nil {
		c.t.Fatal(err)
	}
	c.token, c.ca = env["WEIR_TOKEN"], string(ca)
}

// member makes the member of the i-th host, which has not been started yet.
func (c *cluster) member(i int) *member {
	c.t.Helper()
	m := &member{c: c, host: c.hosts[i], name: c.hosts[i].Name}
	if c.options.disks {
		m.disk = powercut.New(c.t, powercut.Options{Seed: c.seed + uint64(i)})
		m.data = m.disk.Dir()
	} else {
		m.data = c.t.TempDir()
	}
	if c.options.relayed {
		c.relays[m.name] = newRelays(c, m)
	}
	m.client = c.client(m)
	return m
}

// newMember has another member join, on the i-th host, by way of any that runs.
// Names and data are as new, whoever lived on that host before.
func (c *cluster) newMember(i int) *member {
	c.t.Helper()
	m := c.member(i)
	m.join(c.running()[0])
	m.ready()
	c.mu.Lock()
	c.members = append(c.members, m)
	c.mu.Unlock()
	return m
}

// forget takes a member out of the tests' own list.
func (c *cluster) forget(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = slices.DeleteFunc(slices.Clone(c.members), func(o *member) bool { return o == m })
}

// all are the members, by host.
func (c *cluster) all() []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members
}

// running are the members whose process runs.
func (c *cluster) running() []*member {
	return slices.DeleteFunc(slices.Clone(c.all()), func(m *member) bool { return !m.isRunning() })
}

// random draws: each purpose from a row of its own.
func (c *cluster) random(purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(c.seed, purpose)) }

// leader waits until there is a leader that knows that it is one.
func (c *cluster) leader() *member { return c.leaderAmong(c.running()...) }

// leaderAmong waits until one of these leads in the newest term.
func (c *cluster) leaderAmong(members ...*member) (leader *member) {
	c.t.Helper()
	await(c.t, "a leader", func(ctx context.Context) error {
		leader = nil
		var newest uint64
		for _, m := range members {
			status, err := m.status(ctx)
			if err != nil || status.GetTerm() < newest {
				continue
			}
			if status.GetTerm() > newest {
				newest, leader = status.GetTerm(), nil
			}
			if status.GetLeader() == m.name {
				leader = m
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader
}

// follower is a member that runs and does not lead, drawn at random.
func (c *cluster) follower() *member {
	leader := c.leader()
	others := leader.others()
	return others[c.random(uint64(len(leader.runs))).IntN(len(others))]
}

// awaitVoters waits until all members that run agree that they all vote.
func (c *cluster) awaitVoters() {
	c.t.Helper()
	var want []string
	for _, m := range c.all() {
		want = append(want, m.name)
	}
	slices.Sort(want)
	for _, m := range c.running() {
		await(c.t, "members to vote, as "+m.name+" knows", func(ctx context.Context) error {
			status, err := m.status(ctx)
			if err != nil {
				return err
			}
			if got := voters(status); !slices.Equal(got, want) {
				return fmt.Errorf("%v vote, want %v", got, want)
			}
			return nil
		})
	}
}

func voters(status *weirv1.GetStatusResponse) (names []string) {
	for _, m := range status.GetMembers() {
		if m.GetRole() == weirv1.Member_VOTER {
			names = append(names, m.GetName())
		}
	}
	slices.Sort(names)
	return names
}

func names(members ...*member) (names []string) {
	for _, m := range members {
		names = append(names, m.name)
	}
	return names
}

func addresses(members []*member) string {
	var all []string
	for _, m := range members {
		all = append(all, m.address())
	}
	return strings.Join(all, ",")
}
