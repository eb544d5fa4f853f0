// Package admintest is what tests of the admin API and of its clients put in
// the place of a cluster: the real store with nobody to agree with, and
// servers, keys, tokens and proxies that tests steer.
package admintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/admin"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/store"
)

// Cluster is the Store and the Cluster of an admin.Config.
type Cluster struct {
	store *store.Store

	mu       sync.Mutex
	index    uint64
	commands []*weirv1.Command
	fail     error
	older    func(*weirv1.Command) error
}

// Open keeps a cluster's state in a directory.
func Open(dir string) (*Cluster, error) {
	s, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		return nil, fmt.Errorf("open cluster: %w", err)
	}
	return &Cluster{store: s, index: s.Applied()}, nil
}

// Close ends every watch.
func (c *Cluster) Close() error { return c.store.Close() }

// Fail lets everything that needs the cluster fail from now on; nil mends it.
func (c *Cluster) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// Older has a member of an earlier version, which says what it does not understand;
// nil: there is none.
func (c *Cluster) Older(refuses func(*weirv1.Command) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.older = refuses
}

// Commands returns what was proposed, in order.
func (c *Cluster) Commands() []*weirv1.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.commands)
}

// Propose implements admin.Cluster: each command is an entry of its own.
func (c *Cluster) Propose(_ context.Context, cmd *weirv1.Command) (*weirv1.ApplyResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, c.fail
	}
	if c.older != nil {
		if err := c.older(cmd); err != nil {
			return nil, err
		}
	}
	c.commands = append(c.commands, cmd)
	entry, err := proto.Marshal(&weirv1.Entry{Commands: []*weirv1.Command{cmd}})
	if err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	c.index++
	switch result := c.store.Apply([]uint64{c.index}, [][]byte{entry})[0][0].(type) {
	case *store.RefusedError:
		return nil, refused(result)
	case *weirv1.ApplyResponse:
		return result, nil
	}
	return nil, nil
}

func refused(err error) error {
	var why *store.RefusedError
	if !errors.As(err, &why) {
		return err
	}
	all := make([]admin.Violation, len(why.Violations))
	for i, v := range why.Violations {
		all[i] = admin.Violation{Ref: v.Ref, Field: v.Field, Reason: admin.Reason(v.Reason), Message: v.Message}
	}
	return &admin.Refused{Violations: all}
}

// Sync implements admin.Cluster.
func (c *Cluster) Sync(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}

// Status implements admin.Cluster.
func (c *Cluster) Status(_ context.Context, s *weirv1.GetStatusResponse) error {
	s.Leader, s.TrustDomain, s.Term, s.CommitIndex, s.AppliedIndex = "one", "weir.test", 1, c.store.Applied(), c.store.Applied()
	s.Members = []*weirv1.Member{{Name: "one", Role: weirv1.Member_VOTER, Address: "127.0.0.1:7400"}}
	return nil
}

// View implements admin.Store.
func (c *Cluster) View() admin.View { return c.store.View() }

// DryRun implements admin.Store.
func (c *Cluster) DryRun(tx *weirv1.Transact) (*weirv1.ApplyResponse, error) {
	done, err := c.store.DryRun(tx, time.Now())
	return done, refused(err)
}

// Watch implements admin.Store.
func (c *Cluster) Watch(ctx context.Context, after uint64) iter.Seq2[admin.Change, error] {
	return func(yield func(admin.Change, error) bool) {
		for e, err := range c.store.Watch(ctx, after) {
			if err != nil {
				yield(admin.Change{}, err)
				return
			}
			if !yield(admin.Change{Revision: e.Revision, Reset: e.Reset, Puts: e.Puts, Deletes: e.Deletes}, nil) {
				return
			}
		}
	}
}

// Blob implements admin.Store.
func (c *Cluster) Blob(digest string) ([]byte, error) {
	content, ok := c.store.Blob(digest)
	if !ok {
		return nil, nil
	}
	return io.ReadAll(content)
}

// Usage implements admin.Store.
func (c *Cluster) Usage(q admin.UsageQuery) ([]admin.UsageRow, bool, error) {
	rows, more, err := c.store.Usage(store.UsageQuery{Tenant: q.Tenant, App: q.App, Subscription: q.Subscription, Api: q.Api,
		Since: q.Since, Until: q.Until, Hours: q.Hours, After: store.UsageRow(q.After), Limit: q.Limit})
	page := make([]admin.UsageRow, len(rows))
	for i, r := range rows {
		page[i] = admin.UsageRow(r)
	}
	return page, more, err
}

// Proxies is the Proxies of an admin.Config.
type Proxies struct {
	mu      sync.Mutex
	list    []*weirv1.ProxyStatus
	changed chan struct{}
}

// NewProxies returns none.
func NewProxies() *Proxies { return &Proxies{changed: make(chan struct{})} }

// Set says what the proxies are from now on.
func (p *Proxies) Set(list ...*weirv1.ProxyStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = list
	close(p.changed)
	p.changed = make(chan struct{})
}

// Statuses implements admin.Proxies.
func (p *Proxies) Statuses() ([]*weirv1.ProxyStatus, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list, p.changed
}

// Admission admits what begins like a WASM module.
type Admission struct{}

// Admit implements admin.Admission.
func (Admission) Admit(_ context.Context, _ string, module []byte, limits *weirv1.PluginLimits) (*weirv1.PluginStatus, error) {
	if len(module) < 4 || string(module[:4]) != "\x00asm" {
		return nil, errors.New("is not a WASM module: it does not begin with \\0asm")
	}
	if limits.GetMemoryBytes() == 1<<16 {
		return nil, errors.New("asks for 2 pages of memory, more than its limit of 65536 bytes")
	}
	return &weirv1.PluginStatus{SizeBytes: uint64(len(module)), Abi: "0.2.1"}, nil
}

// Try implements admin.Admission: a configuration with a member "wrong" is refused, and
// one with a member "size" by all modules but those of that size.
func (Admission) Try(_ context.Context, _ *weirv1.Plugin, module []byte, policies []*weirv1.Policy) ([]error, error) {
	wrong := make([]error, len(policies))
	for i, p := range policies {
		if _, is := p.GetSpec().GetConfig().GetFields()["wrong"]; is {
			wrong[i] = errors.New("it refuses its configuration")
		}
		if size, is := p.GetSpec().GetConfig().GetFields()["size"]; is && int(size.GetNumberValue()) != len(module) {
			wrong[i] = errors.New("it wants a module of another size")
		}
	}
	return wrong, nil
}

// TryFirewall implements admin.Admission: rules that hold "wrong" are refused.
func (Admission) TryFirewall(_ context.Context, settings *weirv1.Firewall) (field, message string, err error) {
	if strings.Contains(settings.GetRules(), "wrong") {
		return "rules", "line 1: it refuses its rules", nil
	}
	return "", "", nil
}

// Sealer turns bytes around, under the purpose in clear.
type Sealer struct{}

// Seal implements admin.Sealer.
func (Sealer) Seal(purpose string, data []byte) []byte {
	sealed := []byte(purpose + ":")
	for _, b := range data {
		sealed = append(sealed, ^b)
	}
	return sealed
}

// Tokens knows bearers by their token.
type Tokens map[string]string

// Authenticate implements admin.Authenticator.
func (t Tokens) Authenticate(_ context.Context, token string) (string, error) {
	if actor, ok := t[token]; ok {
		return actor, nil
	}
	return "", fmt.Errorf("authenticate: %w", admin.ErrNoSuchToken)
}
