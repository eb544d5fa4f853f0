package testcluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.uber.org/goleak"

	"github.com/weirmesh/weir/cluster"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/store"
)

// childDir makes this program the process that a test kills.
const childDir = "WEIR_TESTCLUSTER_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func service(name, subset string) *weirv1.Resource {
	return resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: name},
		Spec: &weirv1.ServiceSpec{Subsets: []*weirv1.Subset{{Name: subset}}}})
}

func ref(name string) resource.Ref {
	return resource.Ref{Kind: resource.KindService, Tenant: resource.DefaultTenant, Name: name}
}

func TestRestartKeepsEverything(t *testing.T) {
	m := Start(t)
	m.Apply(t, service("a", "v1"))
	m.Apply(t, service("b", "v1"))
	if err := m.Node.Snapshot(); err != nil {
		t.Fatal(err)
	}
	m.Apply(t, service("c", "v1"))
	before := m.Store.View()
	for range 2 {
		m.Restart(t)
		if now := m.Store.View(); now.Revision() != before.Revision() || now.Len() != 3 {
			t.Fatalf("revision %d with %d resources, was %d with %d", now.Revision(), now.Len(), before.Revision(), before.Len())
		}
	}
	// A revision goes on from where it was.
	if got := m.Apply(t, service("c", "v2")).Revision; got <= before.Revision() {
		t.Errorf("revision %d follows %d", got, before.Revision())
	}
}

// child writes until it is killed, and says what was acknowledged.
func child(dir string) error {
	m, err := Open(dir, cluster.Config{SnapshotEntries: 64, SnapshotBytes: 16 << 10})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := m.Node.Ready(ctx); err != nil {
		return err
	}
	failed := make(chan error)
	for caller := range 8 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("s%d-%d-%d", os.Getpid(), caller, i)
				result, err := m.Node.Propose(ctx, &weirv1.Command{Action: &weirv1.Command_Transact{
					Transact: &weirv1.Transact{Puts: []*weirv1.Resource{service(name, "v1"), service("shared", name)}},
				}})
				response, ok := result.(*weirv1.ApplyResponse)
				if err != nil || !ok {
					failed <- fmt.Errorf("%v, %w", result, err)
					return
				}
				// One write: a line is out or not.
				if _, err := fmt.Fprintf(os.Stdout, "%s %d\n", name, response.Revision); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// TestKilledProcessLosesNothingThatWasAcknowledged kills a writing process
// again and again, in the midst of whatever it does. This process, which looks
// at what is left, rebuilds the state from snapshot and log; the next one takes
// over a state that was closed.
func TestKilledProcessLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]uint64{}
	for _, enough := range []int{1, 40, 400, 3, 1500} {
		killOnce(t, dir, enough, acknowledged)
		m, err := Open(dir, cluster.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Node.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, revision := range acknowledged {
			r, ok := m.Store.View().Get(ref(name))
			if !ok || resource.Meta(r).Revision != revision {
				t.Errorf("%s was acknowledged at %d, and is %v", name, revision, r)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d writes were acknowledged", len(acknowledged))
}

func killOnce(t *testing.T, dir string, enough int, acknowledged map[string]uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for lines := bufio.NewScanner(out); lines.Scan(); seen++ {
		var name string
		var revision uint64
		if _, err := fmt.Sscanf(lines.Text(), "%s %d", &name, &revision); err == nil {
			acknowledged[name] = revision
		}
		if seen == enough {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the process ended by itself: %v\n%s", err, stderr.String())
	}
}

// TestHistoryIsLinearizable: puts, compare-and-sets and reads of one resource,
// by callers that overlap, could have happened one after the other.
func TestHistoryIsLinearizable(t *testing.T) {
	m := Start(t)
	type input struct {
		op       string
		value    string
		expected uint64
	}
	type output struct {
		value    string
		revision uint64
		refused  bool
	}
	type state struct {
		value    string
		revision uint64
	}
	model := porcupine.Model{
		Init: func() any { return state{} },
		Step: func(before, given, got any) (bool, any) {
			s, in, out := before.(state), given.(input), got.(output)
			if in.op == "read" {
				return out.value == s.value && out.revision == s.revision, s
			}
			if refused := in.op == "cas" && in.expected != s.revision; refused || out.refused {
				return refused == out.refused, s
			}
			return out.revision > s.revision, state{value: in.value, revision: out.revision}
		},
	}
	read := func() output {
		r, ok := m.Store.View().Get(ref("x"))
		if !ok {
			return output{}
		}
		return output{value: r.GetService().Spec.Subsets[0].Name, revision: resource.Meta(r).Revision}
	}
	write := func(in input) (output, error) {
		r := service("x", in.value)
		resource.Meta(r).Revision = in.expected
		result, err := m.Node.Propose(t.Context(), &weirv1.Command{Action: &weirv1.Command_Transact{Transact: &weirv1.Transact{Puts: []*weirv1.Resource{r}}}})
		if err != nil {
			return output{}, err
		}
		response, ok := result.(*weirv1.ApplyResponse)
		_, refused := result.(*store.RefusedError)
		if !ok && !refused {
			return output{}, fmt.Errorf("result is %v", result)
		}
		return output{revision: response.GetRevision(), refused: refused}, nil
	}
	var (
		mu      sync.Mutex
		history []porcupine.Operation
		callers sync.WaitGroup
		began   = time.Now()
	)
	for caller := range 6 {
		callers.Go(func() {
			var last uint64
			for i := range 60 {
				in := input{op: []string{"read", "cas", "put"}[(caller+i)%3], value: fmt.Sprintf("v%d-%d", caller, i)}
				if in.op == "cas" {
					if in.expected = last; last == 0 {
						in.op = "put"
					}
				}
				call := time.Since(began)
				var out output
				var err error
				if in.op == "read" {
					if err = m.Node.ReadBarrier(t.Context()); err == nil {
						out = read()
					}
				} else {
					out, err = write(in)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !out.refused {
					last = out.revision
				}
				mu.Lock()
				history = append(history, porcupine.Operation{
					ClientId: caller, Input: in, Output: out, Call: int64(call), Return: int64(time.Since(began)),
				})
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if !porcupine.CheckOperations(model, history) {
		t.Error("no order explains the history")
	}
}
