//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// server is the member that the sidecar's configuration streams from, by its log.
func (s *sidecar) server() *member {
	s.c.t.Helper()
	var found *member
	await(s.c.t, s.name+" to be connected", func(context.Context) error {
		out := s.process.Output()
		line := out[max(0, strings.LastIndex(out, "configuration streams")):]
		line, _, _ = strings.Cut(line, "\n")
		for _, m := range s.c.all() {
			if strings.Contains(line, m.address()) {
				found = m
				return nil
			}
		}
		return errors.New("its log does not say to whom")
	})
	return found
}

// awaitConnected waits until one of the members knows that the sidecar is connected.
func (s *sidecar) awaitConnected(m *member) {
	s.c.t.Helper()
	await(s.c.t, s.name+" to be connected, as "+m.name+" knows", func(ctx context.Context) error {
		status, err := m.status(ctx)
		if err != nil {
			return err
		}
		for _, p := range status.GetProxies() {
			if p.GetName() == s.name && p.GetConnected() {
				return nil
			}
		}
		return fmt.Errorf("the proxies are %v", status.GetProxies())
	})
}

// A server that only proxies can reach sends them to the others, so that nobody takes
// their instances for gone. Where no server has a leader none is sent away for good.
func TestAServerIsCutOffFromTheOthersButNotFromItsSidecars(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1})
	c.declareServices("books")
	books := c.sidecar(c.hosts[3], "books-1", "books")
	born, err := books.instance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// lives waits for longer than it takes to be taken for dead.
	lives := func() {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if by, err := books.call("books"); err != nil || by != "books-1" {
				t.Fatalf("it is answered by %q, %v", by, err)
			}
		}
		books.awaitInstance("stays", func(i *weirv1.Instance) bool { return i != nil })
		i, err := books.instance(t.Context())
		if err == nil && i.GetMetadata().GetCreateRevision() != born.GetMetadata().GetCreateRevision() {
			t.Errorf("it was withdrawn meanwhile: %v, then %v", born, i)
		}
	}
	for range 2 {
		lost := books.server()
		c.hosts.Partition(names(lost), names(lost.others()...))
		books.awaitConnected(c.leaderAmong(lost.others()...))
		lives()
		c.hosts.Heal()
		c.awaitVoters()
	}

	last := books.server()
	for _, m := range last.others() {
		m.kill()
	}
	for range 3 { // it looks around, and comes back
		lives := time.Now().Add(4 * time.Second)
		for time.Now().Before(lives) {
			if by, err := books.call("books"); err != nil || by != "books-1" {
				t.Fatalf("without a majority it is answered by %q, %v", by, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		books.awaitConnected(last)
	}
	for _, m := range c.all() {
		if !m.isRunning() {
			m.start()
		}
	}
	for _, m := range c.all() {
		m.ready()
	}
	lives()
}
