package nodeapi

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/weirmesh/weir/internal/durable"
)

const (
	rosterName = "servers"
	// A list of servers is not longer than this, nor an address.
	maxServers = 64
	maxAddress = 270
)

// roster is where servers may be: what they themselves say, and after that what
// the proxy was configured with. What they say is kept on disk, so that the
// cluster is found again when none of its servers is where it was.
//
// Each proxy has an order of its own, by its name, so that many of them spread
// over the servers, and those of a server that is gone over all others.
type roster struct {
	name       string
	path       string
	configured []string

	mu      sync.Mutex
	learned []string
	order   []string
}

// openRoster returns a roster in any case; with an error it knows only what was
// configured.
func openRoster(dir, name string, configured []string) (*roster, error) {
	r := &roster{name: name, path: filepath.Join(dir, rosterName), configured: slices.Clone(configured)}
	r.arrange()
	data, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		r.learned, err = parseServers(data)
	}
	if err != nil {
		r.learned = nil
		return r, fmt.Errorf("read list of servers %s: %w", r.path, err)
	}
	r.arrange()
	return r, nil
}

// parseServers reads one address a line.
func parseServers(data []byte) ([]string, error) {
	list := strings.Fields(string(data))
	return list, checkServers(list)
}

// checkServers says what is wrong with a list that somebody else has made.
func checkServers(list []string) error {
	if len(list) > maxServers {
		return fmt.Errorf("%d servers are more than %d", len(list), maxServers)
	}
	for _, address := range list {
		host, port, err := net.SplitHostPort(address)
		if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 || host == "" ||
			len(address) > maxAddress || strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("%q is not HOST:PORT", truncate(address, maxAddress))
		}
	}
	return nil
}

// learn takes what a server says. It tells whether that was news.
func (r *roster) learn(list []string) (news bool, err error) {
	if err := checkServers(list); err != nil {
		return false, fmt.Errorf("take in list of servers: %w", err)
	}
	list = slices.Compact(slices.Sorted(slices.Values(list)))
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(list) == 0 || slices.Equal(list, r.learned) {
		return false, nil
	}
	r.learned = list
	r.arrange()
	if err := durable.WriteFile(r.path, []byte(strings.Join(list, "\n")+"\n")); err != nil {
		return true, fmt.Errorf("keep list of servers: %w", err)
	}
	return true, nil
}

// arrange makes the order anew.
func (r *roster) arrange() {
	r.order = r.order[:0:0]
	for _, list := range [][]string{r.learned, r.configured} {
		list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(r.order, s) })
		slices.SortFunc(list, func(a, b string) int { return cmp.Compare(r.rank(a), r.rank(b)) })
		r.order = append(r.order, slices.Compact(list)...)
	}
}

func (r *roster) rank(address string) uint64 { return xxhash.Sum64String(r.name + "\n" + address) }

// all returns the addresses, the one to try first first.
func (r *roster) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.order)
}

// demote puts an address last: it has just failed.
func (r *roster) demote(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.order, address); i >= 0 {
		r.order = append(slices.Delete(r.order, i, i+1), address)
	}
}
