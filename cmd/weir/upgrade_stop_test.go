package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// atWork are the processes of the program that have a data directory, those that are only
// on their way to be it included.
func atWork(t *testing.T, dir string) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		line, err := os.ReadFile(filepath.Join(path, "cmdline"))
		if err != nil || !strings.Contains(string(line), "\x00"+dir+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(filepath.Base(path), &pid); err != nil {
			t.Fatal(err)
		}
		if !zombie(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func sendSignal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("signal %d: %v", pid, err)
	}
}

// starting hands an edge over to a process that does not come to serve: it has no
// configuration, and the servers stand still. letServe has them go on.
func (u *upgradable) starting() (old, next int, letServe func()) {
	u.t.Helper()
	eventually(u.t, "what it was told is on its disk, and is not any more", func() bool { return os.Remove(filepath.Join(u.dir, "config.journal")) == nil })
	sendSignal(u.t, u.server, syscall.SIGSTOP)
	old = holder(u.t, u.dir)
	sendSignal(u.t, old, syscall.SIGUSR2)
	eventually(u.t, "the next process has started", func() bool { return said(u.t, u.log, "edge started") == 2 })
	for _, pid := range atWork(u.t, u.dir) {
		if pid != old {
			next = pid
		}
	}
	if got := holder(u.t, u.dir); got != old || next == 0 {
		u.t.Fatalf("%d has the directory, not %d; the next process is %d", got, old, next)
	}
	return old, next, func() { sendSignal(u.t, u.server, syscall.SIGCONT) }
}

// Who is asked to hand over while the hand-over to it is under way does so when that is
// done: there is one process in the end.
func TestUpgradeWhileTheNextProcessStarts(t *testing.T) {
	for name, asked := range map[string]func(old, next int) int{
		"asked the next one": func(_, next int) int { return next },
		"asked the old one":  func(old, _ int) int { return old },
	} {
		t.Run(name, func(t *testing.T) {
			u := startUpgradable(t)
			old, next, letServe := u.starting()
			sendSignal(t, asked(old, next), syscall.SIGUSR2)
			if now := atWork(t, u.dir); len(now) != 2 {
				t.Fatalf("there are %v", now)
			}
			letServe()
			eventually(t, "two have followed", func() bool { return said(t, u.log, "weir: ready") == 3 })
			eventually(t, "one is left", func() bool { return len(atWork(t, u.dir)) == 1 })
			if last := holder(t, u.dir); !slices.Equal(atWork(t, u.dir), []int{last}) || last == old || last == next {
				t.Errorf("%d has the directory; there are %v", last, atWork(t, u.dir))
			}
			if n := said(t, u.log, "does not serve"); n > 0 {
				t.Errorf("%d attempts have failed", n)
			}
		})
	}
}

// Where the next process ends before it serves, the old one can be found as before.
func TestUpgradeToWhatIsKilled(t *testing.T) {
	u := startUpgradable(t)
	old, next, letServe := u.starting()
	sendSignal(t, next, syscall.SIGKILL)
	eventually(t, "it says so", func() bool { return said(t, u.log, "does not serve; this one goes on") == 1 })
	letServe()
	if got := holder(t, u.dir); got != old {
		t.Errorf("%d has the directory, not %d", got, old)
	}
}

// A sidecar that is stopped while it hands over ends, and so does the process that would
// have followed; only then is the instance withdrawn, for good.
func TestASidecarIsStoppedWhileItHandsOver(t *testing.T) {
	m := startUpgradableMesh(t)
	s := m.sidecars[0]
	if err := os.Remove(s.program); err != nil {
		t.Fatal(err)
	}
	// It comes when it is too late.
	script := fmt.Sprintf("#!/bin/sh\nuntil grep -q 'instance withdrawn' %s; do sleep 0.01; done\nexec %s \"$@\"\n", s.log, m.program)
	if err := os.WriteFile(s.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	old := holder(t, s.dir)
	sendSignal(t, old, syscall.SIGUSR2)
	eventually(t, "it hands over", func() bool { return len(atWork(t, s.dir)) == 2 })
	sendSignal(t, old, syscall.SIGTERM)
	eventually(t, "it ends", func() bool { return syscall.Kill(old, 0) != nil || zombie(old) })
	if left := atWork(t, s.dir); len(left) > 0 {
		t.Errorf("there are %v still", left)
	}
	if n := said(t, s.log, "weir: ready"); n != 1 {
		t.Errorf("%d processes have served", n)
	}
	if is := m.instances(); len(is) != 1 {
		t.Errorf("the instances are %v", is)
	}
}
