package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/weirmesh/weir/internal/durable"
)

// Founder is a server that founds a cluster together with others.
type Founder struct {
	Name string `json:"name"`
	// Address is where the others find it.
	Address string `json:"address"`
}

// Founders agree on who they are: each of them must found the same cluster, or
// there would be two.
//
// Founders tell each other hellos until one knows as many as are expected. It
// then commits itself to that list, on its disk, and to no other from then on.
// The list is agreed on once every server in it has said that it is committed
// to it: of two lists with a server in common, that server has chosen one.
//
// A founder answers for as long as another may have to hear it: until all have
// joined the cluster. How hellos travel is the caller's matter, between peers
// that [Founding.Verify] believes.
type Founders struct {
	path   string
	self   Founder
	expect int

	mu        sync.Mutex
	met       map[string]Founder // whom this one has heard itself, and itself
	told      map[string]string  // addresses that others told of, by name
	committed []Founder          // by name; nil: not yet
	confirmed map[string]bool    // who said to be committed to the same list
	failed    error
	changed   chan struct{} // closed when one of the above changes
}

// NewFounders begins, or goes on where the file at path says that this server
// has committed itself before.
func NewFounders(path string, self Founder, expect int) (*Founders, error) {
	f := &Founders{path: path, self: self, expect: expect, met: map[string]Founder{self.Name: self},
		told: map[string]string{}, confirmed: map[string]bool{}, changed: make(chan struct{})}
	if err := self.validate(); err != nil {
		return nil, fmt.Errorf("found cluster: %w", err)
	}
	if expect < 1 || expect > maxFounders {
		return nil, fmt.Errorf("found cluster: %d servers are not between 1 and %d", expect, maxFounders)
	}
	data, err := os.ReadFile(path)
	if err == nil {
		f.committed, err = parseFounders(data)
		if err == nil && !slices.ContainsFunc(f.committed, func(m Founder) bool { return m.Name == self.Name }) {
			err = fmt.Errorf("%s is none of them", self.Name)
		}
		f.confirmed[self.Name] = true
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read founders in %s: %w", path, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f, f.commit(byName(f.met))
}

// maxFounders is more than any cluster begins with.
const maxFounders = 64

func (m Founder) validate() error {
	if err := ValidName(m.Name); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(m.Address); err != nil || len(m.Address) > 300 {
		return fmt.Errorf("address of %s is not host:port", m.Name)
	}
	return nil
}

func parseFounders(data []byte) ([]Founder, error) {
	var list []Founder
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	return list, checkFounders(list)
}

// checkFounders holds a list to its order, in which no name comes twice.
func checkFounders(list []Founder) error {
	if len(list) > maxFounders {
		return fmt.Errorf("%d founders are more than %d", len(list), maxFounders)
	}
	for i, m := range list {
		if err := m.validate(); err != nil {
			return err
		}
		if i > 0 && list[i-1].Name >= m.Name {
			return errors.New("the founders are not in order")
		}
	}
	return nil
}

// hello is what founders tell each other.
type hello struct {
	Self      Founder   `json:"self"`
	Expect    int       `json:"expect"`
	Met       []Founder `json:"met"`
	Committed []Founder `json:"committed,omitempty"`
}

// maxHello is more than the longest hello has.
const maxHello = 64 << 10

func parseHello(data []byte) (*hello, error) {
	if len(data) > maxHello {
		return nil, fmt.Errorf("read founder's hello: it has %d bytes", len(data))
	}
	h := new(hello)
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("read founder's hello: %w", err)
	}
	if err := errors.Join(h.Self.validate(), checkFounders(h.Met), checkFounders(h.Committed)); err != nil {
		return nil, fmt.Errorf("read founder's hello: %w", err)
	}
	return h, nil
}

// Hello is what this founder has to say now.
func (f *Founders) Hello() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := json.Marshal(hello{Self: f.self, Expect: f.expect, Met: byName(f.met), Committed: f.committed})
	if err != nil {
		panic(err) // only for what has no form in JSON
	}
	return data
}

func byName(founders map[string]Founder) []Founder {
	return slices.SortedFunc(maps.Values(founders), func(a, b Founder) int { return strings.Compare(a.Name, b.Name) })
}

// ErrFounding is the cause when servers cannot found a cluster together.
var ErrFounding = errors.New("cannot found a cluster together")

// Hear takes in what a peer has said, whose name is proven. The error is for
// the peer too. One that this founder cannot go on with ends Agreed.
func (f *Founders) Hear(proven string, data []byte) error {
	h, err := parseHello(data)
	if err != nil {
		return err
	}
	if h.Self.Name != proven {
		return fmt.Errorf("%w: %s calls itself %s", ErrFounding, proven, h.Self.Name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.committed != nil {
		return f.hearCommitted(h)
	}
	if err := f.differs(h); err != nil {
		f.failed = err
		f.wake()
		return err
	}
	for _, m := range h.Met {
		f.told[m.Name] = m.Address
	}
	f.met[h.Self.Name] = h.Self
	list := h.Committed // it was chosen with this founder in it
	if list == nil {
		list = byName(f.met)
	}
	if err := f.commit(list); err != nil {
		f.failed = err
		f.wake()
		return err
	}
	if f.committed != nil {
		return f.hearCommitted(h)
	}
	f.wake()
	return nil
}

// differs says what two founders that are not committed disagree on.
func (f *Founders) differs(h *hello) error {
	known, met := f.met[h.Self.Name]
	switch {
	case met && known != h.Self:
		return fmt.Errorf("%w: %w, %s: at %s and at %s", ErrFounding, ErrSameName, known.Name, known.Address, h.Self.Address)
	case h.Expect != f.expect:
		return fmt.Errorf("%w: %s expects %d servers, %s expects %d", ErrFounding, h.Self.Name, h.Expect, f.self.Name, f.expect)
	case h.Committed != nil && !slices.Contains(h.Committed, f.self):
		return fmt.Errorf("%w: %s found it with %s already, and %s is none of them", ErrFounding, h.Self.Name, names(h.Committed), f.self.Name)
	}
	return nil
}

// hearCommitted is Hear once there is no other list to choose.
func (f *Founders) hearCommitted(h *hello) error {
	switch {
	case !slices.Contains(f.committed, h.Self):
		return fmt.Errorf("%w: %s found it already, and %s at %s is none of them", ErrFounding, names(f.committed), h.Self.Name, h.Self.Address)
	case h.Committed != nil && !slices.Equal(h.Committed, f.committed):
		return fmt.Errorf("%w: %s is committed to %s, %s to %s", ErrFounding, h.Self.Name, names(h.Committed), f.self.Name, names(f.committed))
	case h.Committed != nil:
		f.confirmed[h.Self.Name] = true
	}
	f.wake()
	return nil
}

func names(list []Founder) string {
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	return strings.Join(names, ", ")
}

// commit decides for a list, if it has as many founders as are expected. It is
// on the disk before anyone hears of it.
func (f *Founders) commit(list []Founder) error {
	if f.committed != nil || len(list) < f.expect {
		return nil
	}
	data, err := json.Marshal(list)
	if err == nil {
		err = durable.WriteFile(f.path, data)
	}
	if err != nil {
		return fmt.Errorf("commit to founders: %w", err)
	}
	f.committed = list
	f.confirmed[f.self.Name] = true
	return nil
}

func (f *Founders) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Others are the addresses that this founder has heard of, but for its own.
func (f *Founders) Others() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := maps.Clone(f.told)
	for _, m := range slices.Concat(byName(f.met), f.committed) {
		all[m.Name] = m.Address
	}
	delete(all, f.self.Name)
	return slices.Compact(slices.Sorted(maps.Values(all)))
}

// Agreed waits until all founders have committed themselves to one list, and
// returns it, by name.
func (f *Founders) Agreed(ctx context.Context) ([]Founder, error) {
	for {
		f.mu.Lock()
		agreed := f.committed != nil
		for _, m := range f.committed {
			agreed = agreed && f.confirmed[m.Name]
		}
		list, failed, changed, met := f.committed, f.failed, f.changed, names(byName(f.met))
		f.mu.Unlock()
		switch {
		case agreed:
			return slices.Clone(list), nil
		case failed != nil:
			return nil, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("found cluster: %d servers are to do it, of whom there are %s: %w", f.expect, met, context.Cause(ctx))
		}
	}
}

// Committed is the list that this founder has committed itself to, before a
// restart perhaps; nil: to none yet. Whether the others have is for Agreed.
func (f *Founders) Committed() []Founder {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.committed)
}

// Forget removes the file: the cluster is founded, and all founders are in it.
func (f *Founders) Forget() error {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget founders: %w", err)
	}
	return nil
}
