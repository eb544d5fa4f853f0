package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
)

// upgradableMesh is two services, each with its sidecar.
type upgradableMesh struct {
	*upgradable // the one that calls
	sidecars    []*upgradableSidecar
}

type upgradableSidecar struct {
	name, program, dir, log string
	began                   int // processes, so far
}

// startUpgradableMesh starts a server, and the sidecars of books and shop. What load asks
// goes from shop to books, and is metered on the way.
func startUpgradableMesh(t *testing.T) *upgradableMesh {
	m := &upgradableMesh{upgradable: &upgradable{t: t, program: installed(t), gateway: freeport.Address(t), host: "books.mesh"}}
	var node string
	node, _, m.weir = startServer(t, m.program)
	m.weir(`
apiVersion: weir/v1
kind: Service
metadata: {name: books}
spec: {}
---
apiVersion: weir/v1
kind: Service
metadata: {name: shop}
spec: {}
---
apiVersion: weir/v1
kind: Route
metadata: {name: all}
spec: {parentRefs: [{kind: Service, name: books}], rules: [{backendRefs: [{name: books}]}]}
`, "apply", "-f", "-")
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	t.Cleanup(service.Close)
	for name, outbound := range map[string]string{"books": freeport.Address(t), "shop": m.gateway} {
		s := &upgradableSidecar{name: name + "-1", program: installed(t), dir: filepath.Join(t.TempDir(), name), began: 1}
		s.log = spawn(t, s.program, "sidecar", "--name", s.name, "--service", name, "--address", service.Listener.Addr().String(),
			"--data", s.dir, "--servers", node, "--token", m.weir("", "join-token", "create", "--role", "sidecar", "--service", name),
			"--inbound", freeport.Address(t), "--outbound", outbound, "--proxy-admin", freeport.Address(t), "--access-log", "off")
		eventually(t, s.name+" is ready", func() bool { return said(t, s.log, "weir: ready") > 0 })
		m.sidecars = append(m.sidecars, s)
	}
	eventually(t, "both are registered", func() bool { return len(m.instances()) == 2 })
	m.meter()
	return m
}

// instances are the revisions of the Instances that there are, by name: one that was
// withdrawn meanwhile, or changed, is of another one.
func (m *upgradableMesh) instances() map[string]uint64 {
	var list struct {
		Items []struct {
			Metadata struct {
				Name     string
				Revision uint64
			}
		}
	}
	if err := json.Unmarshal([]byte(m.weir("", "get", "instances", "-o", "json")), &list); err != nil {
		m.t.Fatal(err)
	}
	revisions := map[string]uint64{}
	for _, i := range list.Items {
		revisions[i.Metadata.Name] = i.Metadata.Revision
	}
	return revisions
}

// handOver has a sidecar replaced, and waits until the old process has ended.
func (m *upgradableMesh) handOver(s *upgradableSidecar, meanwhile func()) {
	m.t.Helper()
	old := holder(m.t, s.dir)
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		m.t.Fatal(err)
	}
	meanwhile()
	s.began++
	eventually(m.t, "another process of "+s.name+" serves", func() bool { return said(m.t, s.log, "weir: ready") == s.began })
	eventually(m.t, "the one before has ended", func() bool { return syscall.Kill(old, 0) != nil || zombie(old) })
	if holder(m.t, s.dir) == old {
		m.t.Fatalf("process %d has the directory of %s still", old, s.name)
	}
}

// Both sidecars of a call are replaced under load, twice each. Each call is answered, and
// counted once; nobody hears that an instance went or came.
func TestUpgradeOfSidecars(t *testing.T) {
	m := startUpgradableMesh(t)
	before := m.instances()
	ctx, end := context.WithCancel(t.Context())
	answers, wait := m.load(ctx, 8)
	goesOn := func() {
		t.Helper()
		at := answers.Load()
		eventually(t, "calls go on", func() bool { return answers.Load() > at+100 })
	}
	for range 2 {
		for _, s := range m.sidecars {
			goesOn()
			m.handOver(s, func() {})
			goesOn()
		}
	}
	end()
	wait()
	for _, s := range m.sidecars {
		if said(t, s.log, "withdrawn") > 0 {
			t.Errorf("%s has withdrawn its instance", s.name)
		}
	}
	if after := m.instances(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the instances are %v, and were %v", after, before)
	}
	for _, s := range m.sidecars {
		pid := holder(t, s.dir)
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, s.name+" ends", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	}
	if after := m.instances(); len(after) != 0 {
		t.Errorf("of those that have stopped there are %v", after)
	}
	if got, want := m.usage(), answers.Load()+1; got != want { // and one before
		t.Errorf("usage is %d of %d answers", got, want)
	}
}

// A sidecar whose successor takes longer to start than it takes to be taken for dead stays
// registered; so it does if that one does not come to serve at all.
func TestUpgradeToASidecarThatIsSlow(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes as long as a death does, several times")
	}
	m := startUpgradableMesh(t)
	before := m.instances()
	s := m.sidecars[0]
	may, fails := filepath.Join(t.TempDir(), "may"), filepath.Join(t.TempDir(), "fails")
	if err := os.Remove(s.program); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nwhile [ ! -e %s ]; do sleep 0.1; done\n[ -e %s ] && exit 1\nexec %s \"$@\"\n", may, fails, m.program)
	if err := os.WriteFile(s.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		_ = m.instances() // until then a server that has just started withdraws nobody
	}
	long := func() { // 4 s without a stream are a death
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if now := m.instances(); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Fatalf("the instances are %v, and were %v", now, before)
			}
		}
	}
	touch := func(path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	touch(fails)
	if err := syscall.Kill(holder(t, s.dir), syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it hands over", func() bool { return said(t, s.log, "handing over") == 1 })
	long()
	touch(may)
	eventually(t, "it says that nobody serves", func() bool { return said(t, s.log, "does not serve; this one goes on") == 1 })
	for _, path := range []string{may, fails} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	m.handOver(s, func() { long(); touch(may) })
	long()
	if _, err := net.Dial("tcp", m.gateway); err != nil {
		t.Error(err)
	}
}
