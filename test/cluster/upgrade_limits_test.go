//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// What may pass in a window, which is much less than the demand.
const (
	windowLength   = 5 * time.Second
	windowRequests = 200
)

// overload is clients that ask for more than their limit lets pass, and what they got.
type overload struct {
	c     *cluster
	key   string
	edges []*edge

	mu       sync.Mutex
	classes  map[string]uint64 // of answers
	broken   []error
	admitted map[int64]int // by windows: those that came and were answered in it
	astride  int           // admitted, in one of two windows
}

// declareLimited is declareKeyed with an exact limit.
func (c *cluster) declareLimited() (key string) {
	c.t.Helper()
	key = c.declareKeyed()
	plan := resource.Wrap(&weirv1.Plan{Metadata: &weirv1.Metadata{Name: "free"}, Spec: &weirv1.PlanSpec{Apis: []string{"answers"},
		Limits: []*weirv1.PlanLimit{{Name: "window", Requests: windowRequests, Window: durationpb.New(windowLength), Exact: true}}}})
	await(c.t, "the declaration of a limit", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		_, err := c.leader().client.Apply(ctx, &weirv1.ApplyRequest{Resources: []*weirv1.Resource{plan}})
		return err
	})
	return key
}

func windowAt(t time.Time) int64 { return t.UnixNano() / int64(windowLength) }

// ask makes one call at an edge and notes what becomes of it.
func (o *overload) ask(e *edge) error {
	req, err := http.NewRequestWithContext(o.c.t.Context(), "POST", "http://"+e.host.HostPort(publicPort), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Api-Key", o.key)
	came := windowAt(time.Now())
	response, err := e.http.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	answered := windowAt(time.Now())
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.c.t.Context().Err() != nil:
	case err != nil:
		o.broken = append(o.broken, err)
	case response.StatusCode == http.StatusUnauthorized:
		return errors.New("the key is not known there yet") // nobody was answered who is known
	default:
		o.classes[fmt.Sprintf("%dxx", response.StatusCode/100)]++
		if response.StatusCode != http.StatusFound {
			break
		}
		if came != answered {
			o.astride++
		} else {
			o.admitted[came]++
		}
	}
	return err
}

// begin asks until it is told to stop.
func (o *overload) begin() (stop func()) {
	o.c.t.Helper()
	for _, e := range o.edges {
		await(o.c.t, "the key at "+e.host.Name, func(context.Context) error { return o.ask(e) })
	}
	ctx, cancel := context.WithCancel(o.c.t.Context())
	var asking sync.WaitGroup
	for i := range 8 {
		asking.Go(func() {
			for k := i; ctx.Err() == nil; k++ {
				_ = o.ask(o.edges[k%len(o.edges)]) // it notes what becomes of it
				time.Sleep(callPause)
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); asking.Wait() })
	o.c.t.Cleanup(stop)
	return stop
}

// count is how many answers of a class there were.
func (o *overload) count(class string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.classes[class]
}

// awaitMore waits for some more answers of a class.
func (o *overload) awaitMore(class string) {
	o.c.t.Helper()
	before := o.count(class)
	await(o.c.t, "answers of "+class, func(context.Context) error {
		if now := o.count(class); now < before+50 {
			return fmt.Errorf("there are %d, and were %d", now, before)
		}
		return nil
	})
}

// awaitFull waits for a window, from the next one on, in which nearly all that may pass
// has passed.
func (o *overload) awaitFull() {
	o.c.t.Helper()
	first := windowAt(time.Now()) + 1
	await(o.c.t, "a window in which nearly all passes", func(context.Context) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		for window := first; window < windowAt(time.Now()); window++ {
			if o.admitted[window]*10 >= windowRequests*9 {
				return nil
			}
		}
		return fmt.Errorf("passed are %v", o.admitted)
	})
}

// require: in no window more has passed than may, and each answer is counted as what it
// was.
func (o *overload) require() {
	t := o.c.t
	t.Helper()
	windows := slices.Sorted(maps.Keys(o.admitted))
	all := o.astride
	for _, window := range windows {
		n := o.admitted[window]
		if all += n; n > windowRequests {
			t.Errorf("in window %d %d have passed of %d", window, n, windowRequests)
		}
	}
	if len(windows) > 0 {
		if most := int(windows[len(windows)-1]-windows[0]+2) * windowRequests; all > most { // one may be astride
			t.Errorf("%d have passed, where %d may", all, most)
		}
	}
	if err := errors.Join(o.broken[:min(len(o.broken), 5)]...); err != nil {
		t.Errorf("%d calls were broken off, such as: %v", len(o.broken), err)
	}
	t.Logf("answers: %v; passed: %v and %d astride", o.classes, o.admitted, o.astride)
	await(t, "the usage of all answers", func(context.Context) error {
		out, err := o.c.command("usage", "--app", "demo", "-o", "json")
		if err != nil {
			return err
		}
		var rows []struct {
			StatusClass string
			Count       uint64
		}
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		counted := map[string]uint64{}
		for _, r := range rows {
			counted[r.StatusClass] += r.Count
		}
		if !maps.Equal(counted, o.classes) {
			return fmt.Errorf("counted are %v, want %v", counted, o.classes)
		}
		return nil
	})
}

// An exact limit, asked for at an edge of an earlier version and one of this, holds while
// the servers are upgraded one by one: also while members of both versions lead in turn.
// Where the earlier version does not know of limits nothing passes before the last server
// is upgraded, and then it does. Whatever was answered is in the usage in the end.
func TestLimitsWhileServersAreUpgraded(t *testing.T) {
	inFull(t)
	for tag, leases := range map[string]bool{"weir_kind16": false, "weir_kind18": true} {
		t.Run(tag, func(t *testing.T) {
			older := buildTagged(t, tag)
			c := form(t, 3, options{program: older, spares: 2})
			o := &overload{c: c, key: c.declareLimited(), classes: map[string]uint64{}, admitted: map[int64]int{},
				edges: []*edge{c.edgeOf(older, c.hosts[3]), c.edge(c.hosts[4])}}
			stop := o.begin()
			for i, m := range c.all() {
				if leases {
					o.awaitFull()
				} else {
					o.awaitMore("5xx")
					if n := o.count("3xx"); n > 0 {
						t.Errorf("%d have passed before anybody leases", n)
					}
				}
				m.program = ""
				if i%2 == 0 {
					m.restart() // as by a kill
				} else {
					m.stop()
					m.start()
					m.ready()
				}
				c.awaitVoters()
			}
			o.awaitFull()
			if got := c.must(c.command("limits", "status", "--app", "demo", "-o", "wide")); strings.Count(got, "edge/") < 2 {
				t.Errorf("not both edges hold some: %s", got)
			}
			stop()
			o.require()
			c.requireSound()
		})
	}
}
