package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirmesh/weir/internal/freeport"
)

// installed is the program as a file of its own, under its name.
func installed(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "weir")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// spawn starts a process, and ends it with the test. What it says goes to a file.
func spawn(t *testing.T, program string, args ...string) (log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH")) // where it finds itself, whatever the test's frame says
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}                               // with all that follow it
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	t.Cleanup(func() {
		_ = syscall.Kill(-group, syscall.SIGKILL)
		_ = cmd.Wait()
		if said, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s said:\n%s", args[0], said)
		}
	})
	return log
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func said(t *testing.T, log, what string) int {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), what)
}

// holder is the process that has a data directory.
func holder(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0 // just being written
	}
	return pid
}

// upgradable is an edge that serves a route.
type upgradable struct {
	t                  *testing.T
	program, dir, log  string
	gateway, proxyAddr string
	secure             string // the same by TLS, and by QUIC
	host               string // that is asked for
	key                string // that requests bear; empty: none
	weir               func(stdin string, args ...string) (out string)
	server             int // the process
}

// startServer starts a server, which has its directory in data. weir calls it.
func startServer(t *testing.T, program string) (node, data string, weir func(stdin string, args ...string) (out string)) {
	node, data = freeport.Address(t), filepath.Join(t.TempDir(), "server")
	admin := freeport.Address(t)
	server := spawn(t, program, "server", "--bootstrap", "--name", "s1", "--data", data, "--node", node, "--admin", admin)
	eventually(t, "the server is ready", func() bool { return said(t, server, "weir: ready") > 0 })
	env, err := os.ReadFile(filepath.Join(data, "admin.env"))
	if err != nil {
		t.Fatal(err)
	}
	environment := os.Environ()
	for line := range strings.Lines(string(env)) {
		environment = append(environment, strings.TrimSpace(strings.TrimPrefix(line, "export ")))
	}
	return node, data, func(stdin string, args ...string) string {
		cmd := exec.Command(program, args...)
		cmd.Env, cmd.Stdin = environment, strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("weir %v: %v, %s", args, err, err.(*exec.ExitError).Stderr)
		}
		return strings.TrimSpace(string(out))
	}
}

func startUpgradable(t *testing.T) *upgradable {
	u := &upgradable{t: t, program: installed(t), dir: filepath.Join(t.TempDir(), "edge"), gateway: freeport.Address(t), proxyAddr: freeport.Address(t), secure: freeport.Address(t), host: "a"}
	node, data, weir := startServer(t, u.program)
	u.server = holder(t, data)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(upstream.Close)
	host, port, err := net.SplitHostPort(u.gateway)
	if err != nil {
		t.Fatal(err)
	}
	_, securePort, err := net.SplitHostPort(u.secure)
	if err != nil {
		t.Fatal(err)
	}
	weir(fmt.Sprintf(`
apiVersion: weir/v1
kind: Certificate
metadata: {name: shop}
spec: {hostnames: [shop.example], selfSigned: {}}
---
apiVersion: weir/v1
kind: Gateway
metadata: {name: public}
spec:
  listeners:
  - {name: http, port: %s, address: %s, protocol: HTTP}
  - {name: https, port: %s, address: %s, protocol: HTTPS, tls: {certificateRefs: [{name: shop}]}}
---
apiVersion: weir/v1
kind: Service
metadata: {name: echo}
spec: {endpoints: [{address: "%s"}]}
---
apiVersion: weir/v1
kind: Route
metadata: {name: all}
spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: echo}]}]}
`, port, host, securePort, host, upstream.Listener.Addr()), "apply", "-f", "-")
	u.weir = weir
	token := weir("", "join-token", "create", "--role", "edge")
	u.log = spawn(t, u.program, "edge", "--name", "e1", "--data", u.dir, "--servers", node, "--token", token,
		"--proxy-admin", u.proxyAddr, "--access-log", "off")
	eventually(t, "the edge is ready", func() bool { return said(t, u.log, "weir: ready") > 0 })
	return u
}

// load asks without a break, by HTTP/1.1 over connections that are kept while
// the edge keeps them, and never asks twice. It returns how many answers came.
func (u *upgradable) load(ctx context.Context, clients int) (answers *atomic.Int64, wait func()) {
	return u.loadBy(ctx, clients, func() (net.Conn, error) { return net.Dial("tcp", u.gateway) })
}

func (u *upgradable) loadBy(ctx context.Context, clients int, dial func() (net.Conn, error)) (answers *atomic.Int64, wait func()) {
	answers = new(atomic.Int64)
	var running sync.WaitGroup
	for n := range clients {
		running.Go(func() {
			for ctx.Err() == nil {
				c, err := dial()
				if err != nil {
					u.t.Errorf("connect: %v", err)
					return
				}
				in := bufio.NewReader(c)
				for again := true; again && ctx.Err() == nil; {
					body := fmt.Sprint("client ", n, " ", answers.Load())
					fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: %s\r\nX-Api-Key: %s\r\nContent-Length: %d\r\n\r\n%s", u.host, u.key, len(body), body)
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						u.t.Errorf("no answer: %v", err)
						break
					}
					got, err := io.ReadAll(resp.Body)
					if err != nil || resp.StatusCode != 200 || string(got) != body {
						u.t.Errorf("answered %d %q, %v", resp.StatusCode, got, err)
					}
					answers.Add(1)
					again = !resp.Close
				}
				c.Close()
			}
		})
	}
	return answers, running.Wait
}

// meter has the edge know who calls, and count what they are answered.
func (u *upgradable) meter() {
	u.weir(`
apiVersion: weir/v1
kind: Api
metadata: {name: all}
spec: {version: v1, state: PUBLISHED, targetRefs: [{name: all}], authentication: {apiKey: {}}}
---
apiVersion: weir/v1
kind: Plan
metadata: {name: free}
spec: {apis: [all]}
---
apiVersion: weir/v1
kind: App
metadata: {name: demo}
spec: {organization: acme}
---
apiVersion: weir/v1
kind: Subscription
metadata: {name: demo-free}
spec: {app: demo, plan: free}
`, "apply", "-f", "-")
	u.key = u.weir("", "key", "create", "--app", "demo", "-o", "name")
	eventually(u.t, "the edge knows the key", func() bool {
		req, err := http.NewRequest("HEAD", "http://"+u.gateway+"/x", nil)
		if err != nil {
			u.t.Fatal(err)
		}
		req.Host = u.host
		req.Header.Set("X-Api-Key", u.key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			u.t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// usage is how many answers the servers know of.
func (u *upgradable) usage() (n int64) {
	var rows []struct{ Count int64 }
	if err := json.Unmarshal([]byte(u.weir("", "usage", "--app", "demo", "-o", "json")), &rows); err != nil {
		u.t.Fatal(err)
	}
	for _, r := range rows {
		n += r.Count
	}
	return n
}

// An edge is replaced under load, several times, and nobody notices. What both processes
// count while they overlap is counted once.
func TestUpgrade(t *testing.T) {
	u := startUpgradable(t)
	u.meter()
	ctx, end := context.WithCancel(t.Context())
	answers, wait := u.load(ctx, 8)
	pid := holder(t, u.dir)
	for n := range 3 {
		before := answers.Load()
		if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		old := pid
		eventually(t, "another process serves", func() bool { return said(t, u.log, "weir: ready") == n+2 })
		eventually(t, "the one before has ended", func() bool { return syscall.Kill(old, 0) != nil || zombie(old) })
		if pid = holder(t, u.dir); pid == old {
			t.Fatalf("process %d has the directory still", old)
		}
		at := answers.Load()
		eventually(t, "requests go on", func() bool { return answers.Load() > at+100 })
		if at == before {
			t.Error("no request was under way meanwhile")
		}
	}
	end()
	wait()
	if _, err := http.Get("http://" + u.proxyAddr + "/readyz"); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last one ends", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	if got, want := u.usage(), answers.Load()+1; got != want { // and one before
		t.Errorf("usage is %d of %d answers", got, want)
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// A program that does not come to serve changes nothing.
func TestUpgradeToWhatDoesNotServe(t *testing.T) {
	u := startUpgradable(t)
	if err := os.Remove(u.program); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	answers, wait := u.load(ctx, 4)
	pid := holder(t, u.dir)
	failed := 0
	for name, script := range map[string]string{
		"it ends":                      "exit 1",
		"it ends once it has the lock": "echo $$ > " + filepath.Join(u.dir, "lock") + "; exit 1",
		"it leaves one of the sockets": fmt.Sprintf("exec %s \"$@\" --proxy-admin %s", installed(t), freeport.Address(t)),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(u.program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			failed++
			if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it says so", func() bool { return said(t, u.log, "does not serve; this one goes on") == failed })
			at := answers.Load()
			eventually(t, "requests go on", func() bool { return answers.Load() > at+100 })
			if got := holder(t, u.dir); got != pid {
				t.Errorf("%d has the directory", got)
			}
		})
	}
	end()
	wait()
	if n := said(t, u.log, "has open what this one has no use for"); n != 1 {
		t.Errorf("%d processes have said which sockets they leave", n)
	}
	if n := said(t, u.log, "weir: ready"); n != 1 {
		t.Errorf("%d processes have served", n)
	}
}
