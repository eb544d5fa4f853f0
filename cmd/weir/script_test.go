package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weir": main})
}

// The SDK's own example, built once, is stamp.wasm in every script that names it.
var stamp = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "stamp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "stamp.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, "./testdata/stamp")
	cmd.Dir = filepath.Join("..", "..", "plugins-sdk")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build stamp: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

// addPlugins puts stamp.wasm into a script's directory, and lets Go build there
// with what it has built already.
func addPlugins(env *testscript.Env) error {
	if err := writeGuide(env); err != nil {
		return err
	}
	module, err := stamp()
	if err != nil {
		return err
	}
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	env.Defer(service.Close)
	env.Setenv("SERVICE_ADDRESS", service.Listener.Addr().String())
	out, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		return err
	}
	caches := strings.Fields(string(out))
	env.Setenv("GOCACHE", caches[0])
	env.Setenv("GOMODCACHE", caches[1])
	return os.WriteFile(filepath.Join(env.WorkDir, "stamp.wasm"), module, 0o644)
}

// The scripts drive the command against an admin API of their own.
//
//	$WEIR_ADMIN   admits this host without a token
//	$TLS_ADMIN    wants TLS (ca.pem) and the token s3cret
//	proxies [-]NAME=REVISION[?PROBLEM][!REASON]…
//	              says which proxies are connected (-: it was), where they are,
//	              and that one refused the next revision
//	[race]        with the race detector
//	$FREE_ADDRESS a port that nobody has
//	get URL PATTERN
//	              asks until the answer, head and body, matches
//	ask URL N STATUS=COUNT
//	              asks so many times, and counts the answers of a status; all
//	              others must be 200
//	until PATTERN COMMAND…
//	              runs a command until what it prints matches
//	$NODE_ADDRESS, $DEV_ADMIN, $PROXY_ADMIN, $EDGE_ADDRESS
//	              more of them
//	$SERVICE_ADDRESS
//	              a service that answers, in scripts on plugins
//	used TIME SUBSCRIPTION API/OPERATION CLASS COUNT
//	              says what an App, that its Subscription begins with, was answered
//	lose DURATION the server that answers has seen nothing of the others for
//	              so long
func TestScripts(t *testing.T) {
	compiled, free := t.TempDir(), map[string]string{}
	for _, name := range []string{"FREE_ADDRESS", "NODE_ADDRESS", "DEV_ADMIN", "PROXY_ADMIN", "EDGE_ADDRESS"} {
		free[name] = freeport.Address(t)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for name, address := range free {
				env.Setenv(name, address)
			}
			env.Setenv("XDG_CACHE_HOME", compiled) // a module that several run is compiled once
			return setup(env)
		},
		Condition: func(name string) (bool, error) {
			if name != "race" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return raceEnabled, nil
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"proxies": setProxies, "lose": loseServers, "get": getURL, "ask": askURL, "until": untilPrints, "used": setUsed},
	})
}

// writeGuide makes a shell script of the commands in the guide to plugins, and a
// file of the cases in it.
func writeGuide(env *testscript.Env) error {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "plugins.md"))
	if err != nil {
		return err
	}
	for language, file := range map[string]string{"sh": "guide.sh", "yaml": "guide.yaml"} {
		var text strings.Builder
		for _, block := range strings.Split(string(page), "```"+language+"\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			text.WriteString(block)
		}
		if err := os.WriteFile(filepath.Join(env.WorkDir, file), []byte(text.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func setup(env *testscript.Env) error {
	cluster, err := admintest.Open(filepath.Join(env.WorkDir, ".state"))
	if err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	config := admintest.Config(cluster, logger)
	open, err := admin.New(config)
	if err != nil {
		return err
	}
	config.AllowLoopback = false
	closed, err := admin.New(config)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx, l, open, nil, logger) }()
	secure := httptest.NewUnstartedServer(closed)
	secure.Config.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	secure.StartTLS()
	env.Defer(func() {
		secure.Close()
		stop()
		<-served
		cluster.Close()
	})
	env.Values["proxies"], env.Values["servers"], env.Values["cluster"] = config.Proxies, config.Servers, config.Cluster
	env.Setenv("WEIR_ADMIN", l.Addr().String())
	env.Setenv("TLS_ADMIN", secure.Listener.Addr().String())
	env.Setenv("HOME", env.WorkDir)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), ca, 0o644); err != nil {
		return err
	}
	if strings.HasPrefix(filepath.Base(env.WorkDir), "script-plugin") {
		return addPlugins(env)
	}
	return nil
}

func loseServers(ts *testscript.TestScript, _ bool, args []string) {
	since, err := time.ParseDuration(args[0])
	ts.Check(err)
	ts.Value("servers").(*admintest.Servers).Lose(since)
}

// getURL asks until the answer, its head and its body, matches.
func getURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get URL PATTERN")
	}
	wanted, err := regexp.Compile("(?im)" + args[1])
	ts.Check(err)
	var last string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		answer, err := http.Get(args[0])
		if err != nil {
			last = err.Error()
			continue
		}
		whole, err := httputil.DumpResponse(answer, true)
		answer.Body.Close()
		if last = string(whole); err == nil && wanted.MatchString(strings.ReplaceAll(last, "\r", "")) {
			return
		}
	}
	ts.Fatalf("the last answer:\n%s", last)
}

func askURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ask URL N STATUS=COUNT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	status, count, _ := strings.Cut(args[2], "=")
	got := map[string]int{}
	for range n {
		answer, err := http.Get(args[0])
		ts.Check(err)
		answer.Body.Close()
		got[strconv.Itoa(answer.StatusCode)]++
	}
	if want, err := strconv.Atoi(count); err != nil || got[status] != want || got["200"] != n-want {
		ts.Fatalf("the answers: %v", got)
	}
}

func untilPrints(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND…")
	}
	wanted, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ts.Exec(args[1], args[2:]...) == nil && wanted.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("it prints %s", ts.ReadFile("stdout"))
}

func setProxies(ts *testscript.TestScript, neg bool, args []string) {
	var list []*weirv1.ProxyStatus
	for _, arg := range args {
		name, rest, _ := strings.Cut(arg, "=")
		number, reason, refused := strings.Cut(rest, "!")
		number, problem, _ := strings.Cut(number, "?")
		revision, err := strconv.ParseUint(number, 10, 64)
		ts.Check(err)
		name, gone := strings.CutPrefix(name, "-")
		p := &weirv1.ProxyStatus{Name: name, Connected: !gone, Revision: revision, Version: "v1.2.3", Address: "10.0.0.1:7410", Problem: problem}
		if refused {
			p.RefusedRevision, p.RefusedReason = revision+1, reason
		}
		list = append(list, p)
	}
	ts.Value("proxies").(*admintest.Proxies).Set(list...)
}

// A terminal is not to be had here, so what it gets is looked at by itself.
func TestDiffInColour(t *testing.T) {
	const text = "--- a\n+++ b\n@@ -1 +1 @@\n same\n-old\n+new\n"
	if got := (painter{}).paint(text); got != text {
		t.Errorf("got %q", got)
	}
	const want = "\x1b[1m--- a\x1b[0m\n\x1b[1m+++ b\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n same\n\x1b[31m-old\x1b[0m\n\x1b[32m+new\x1b[0m\n"
	if got := (painter{true}).paint(text); got != want {
		t.Errorf("got %q", got)
	}
	if isTerminal(new(bytes.Buffer)) {
		t.Error("a buffer is no terminal")
	}
}
