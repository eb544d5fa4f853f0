//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// How many calls it takes: in the short form, and in full.
const (
	fewCalls  = 2_000
	manyCalls = 50_000

	callPause = 5 * time.Millisecond
)

// callers are clients of an App that call edges. A call that ends without an answer may
// have been answered or not; one with an answer was.
type callers struct {
	c     *cluster
	key   string
	edges []*edge

	answered, unknown atomic.Uint64
}

// declareKeyed has edges answer who bears the key of an App, which it returns.
func (c *cluster) declareKeyed() (key string) {
	c.t.Helper()
	c.declare("shop.example")
	meta := func(name string) *weirv1.Metadata { return &weirv1.Metadata{Name: name} }
	resources := []*weirv1.Resource{
		resource.Wrap(&weirv1.Api{Metadata: meta("answers"), Spec: &weirv1.ApiSpec{Version: "v1", State: weirv1.ApiSpec_PUBLISHED,
			TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "answer"}}, Authentication: &weirv1.ApiAuthentication{ApiKey: &weirv1.ApiKey{}}}}),
		resource.Wrap(&weirv1.Plan{Metadata: meta("free"), Spec: &weirv1.PlanSpec{Apis: []string{"answers"}}}),
		resource.Wrap(&weirv1.App{Metadata: meta("demo"), Spec: &weirv1.AppSpec{Organization: "acme"}}),
		resource.Wrap(&weirv1.Subscription{Metadata: meta("demo-free"), Spec: &weirv1.SubscriptionSpec{App: "demo", Plan: "free"}}),
	}
	await(c.t, "the declaration of an API", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		_, err := c.leader().client.Apply(ctx, &weirv1.ApplyRequest{Resources: resources})
		return err
	})
	await(c.t, "a key", func(context.Context) (err error) {
		key, err = c.command("key", "create", "--app", "demo", "-o", "name")
		return err
	})
	return strings.TrimSpace(key)
}

// call makes one call, which no client sends twice by itself.
func (s *callers) call(e *edge) error {
	req, err := http.NewRequestWithContext(s.c.t.Context(), "POST", "http://"+e.host.HostPort(publicPort), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Api-Key", s.key)
	response, err := e.http.Do(req)
	if err != nil {
		s.unknown.Add(1)
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if err != nil {
		s.unknown.Add(1)
		return err
	}
	if response.StatusCode == http.StatusUnauthorized {
		return errors.New("the key is not known there yet") // nobody was answered who is known
	}
	s.answered.Add(1)
	return nil
}

// know waits until all edges know the key.
func (s *callers) know() {
	s.c.t.Helper()
	for _, e := range s.edges {
		await(s.c.t, "the key at "+e.host.Name, func(context.Context) error { return s.call(e) })
	}
}

// goOn makes calls, some at a time, until there are n more answers and it is told that
// it may end.
func (s *callers) goOn(n int, may <-chan struct{}) {
	until := s.answered.Load() + uint64(n)
	ended := func() bool {
		select {
		case <-s.c.t.Context().Done():
			return true
		case <-may:
			return s.answered.Load() >= until
		default:
			return false
		}
	}
	var calling sync.WaitGroup
	for i := range 8 {
		calling.Go(func() {
			for k := i; !ended(); k++ {
				_ = s.call(s.edges[k%len(s.edges)]) // it counts what becomes of it
				time.Sleep(callPause)
			}
		})
	}
	calling.Wait()
}

// usage is what the servers say that the App was answered.
func (s *callers) usage() (n uint64, err error) {
	out, err := s.c.command("usage", "--app", "demo", "-o", "json")
	if err != nil {
		return 0, err
	}
	var rows []struct {
		API, Operation, StatusClass string
		Count                       uint64
	}
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	for _, r := range rows {
		if r.API != "answers" || r.Operation != "-" || r.StatusClass != "3xx" {
			return 0, fmt.Errorf("an odd row: %+v", r)
		}
		n += r.Count
	}
	return n, nil
}

// require waits until nothing more comes, and compares.
func (s *callers) require() {
	s.c.t.Helper()
	answered, unknown := s.answered.Load(), s.unknown.Load()
	last, same := uint64(0), 0
	await(s.c.t, "the usage of all answers", func(context.Context) error {
		n, err := s.usage()
		if err != nil {
			return err
		}
		if n != last {
			last, same = n, 0
		}
		if same++; n < answered || same < 60 {
			return fmt.Errorf("usage is %d, the same %d times; %d were answered, of %d nobody knows", n, same, answered, unknown)
		}
		return nil
	})
	s.c.t.Logf("usage %d, answered %d, not known %d", last, answered, unknown)
	if last > answered+unknown {
		s.c.t.Errorf("usage is %d, which is more than the %d answered and the %d that may have been", last, answered, unknown)
	}
}

// Usage equals the answers that clients got, whoever is killed meanwhile: edges, servers,
// one or all. What was under way when an edge was killed may be counted or not.
func TestUsageIsExactWhoeverIsKilled(t *testing.T) {
	c := form(t, 3, options{spares: 2})
	s := &callers{c: c, key: c.declareKeyed(), edges: []*edge{c.edge(c.hosts[3]), c.edge(c.hosts[4])}}
	s.know()
	calls, kills := fewCalls, 4
	if *all {
		calls, kills = manyCalls, 24
	}
	random := rand.New(rand.NewPCG(c.seed, 6))
	killed, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); s.goOn(calls, killed) }()
	for n := range kills {
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		switch n % 4 {
		case 0, 2:
			e := s.edges[random.IntN(2)]
			e.process.Restart() // by a kill
			e.ready()
		case 1:
			m := c.all()[random.IntN(3)]
			m.kill()
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
			m.start()
			m.ready()
		case 3:
			for _, m := range c.all() {
				m.kill()
			}
			s.edges[0].process.Restart()
			for _, m := range c.all() {
				m.start()
			}
			for _, m := range c.all() {
				m.ready()
			}
			s.edges[0].ready()
		}
	}
	close(killed)
	<-done
	s.require()

	// Nobody is called while they are killed: then it is exact.
	before, err := s.usage()
	if err != nil {
		t.Fatal(err)
	}
	was := s.answered.Load()
	s.goOn(calls/10, killed)
	for _, e := range s.edges {
		e.process.Kill9()
	}
	for _, m := range c.all() {
		m.kill()
	}
	for _, m := range c.all() {
		m.start()
	}
	for _, e := range s.edges {
		e.process.Restart()
	}
	for _, e := range s.edges {
		e.ready()
	}
	await(t, "the usage of these answers", func(context.Context) error {
		n, err := s.usage()
		if want := before + s.answered.Load() - was; err == nil && n != want {
			err = fmt.Errorf("usage is %d, want %d", n, want)
		}
		return err
	})
}
