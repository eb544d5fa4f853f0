package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// Mistakes on the command line exit with 2 and say what to type; what goes
// wrong later exits with 1.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", 0, ""},
		{"--help", 0, ""},
		{"version", 0, ""},
		{"aply", 2, "apply"},
		{"apply", 2, "name what to read with -f"},
		{"apply shop.yaml", 2, "a file is named with -f: weir apply -f shop.yaml"},
		{"apply -f x --wait 5s", 2, "--wait=5s"},
		{"edge --admin 127.0.0.1:7411 --servers 127.0.0.1:7400", 2, "--proxy-admin"},
		{"apply -f x --wait=soon", 2, "invalid duration"},
		{"apply -f x -o xml", 2, "must be one of table, wide, json, yaml, name"},
		{"get --nonsense", 2, "unknown flag"},
		{"get pods", 2, `there is no kind "pods"; the kinds are gateway, service, route, plugin, policy`},
		{"get rotue", 2, `there is no kind "rotue"; did you mean "route"?`},
		{"get route/a b", 2, `"b" is not KIND/NAME`},
		{"get route a --tenant *", 2, "name the tenant"},
		{"describe route", 2, "name what to describe"},
		{"delete", 2, "name what to delete"},
		{"delete route", 2, "name what to delete"},
		{"delete route a -f x", 2, "but not both"},
		{"plugin", 2, "say what to do: bench, build, history, inspect, keygen, list, new, promote, pull, push, replay, rollback, run, sign, status, test, verify"},
		{"plugin psh", 2, `did you mean "push"?`},
		{"plugin push a", 2, "there is no standard policy"},
		{"plugin push a b --canary 0%", 2, `"0%" is not a share such as 5%: more than 0 and at most 100`},
		{"plugin push a b --canary most", 2, `"most" is not a share such as 5%`},
		{"plugin promote", 2, "accepts 1 arg(s)"},
		{"plugin promote a --canary 101", 2, "at most 100"},
		{"plugin rollback a b", 2, "accepts 1 arg(s)"},
		{"plugin history", 2, "accepts 1 arg(s)"},
		{"plugin status", 2, "accepts 1 arg(s)"},
		{"plugin keygen", 2, "accepts 1 arg(s)"},
		{"plugin pull a", 2, "accepts 2 arg(s)"},
		{"plugin sign a", 2, "accepts 2 arg(s)"},
		{"plugin sign a b", 2, "name the private key with --key"},
		{"plugin verify a b", 2, "name a public key with --key"},
		{"edge --data x --servers 127.0.0.1:1 --plugin-keys /nonexistent", 1, "read --plugin-keys: open /nonexistent"},
		{"completion", 2, "say what to do: bash, fish"},
		{"completion bsh", 2, `did you mean "bash"?`},
		{"join-token create --role edge --ttl 3d", 2, "did you mean 72h?"},
		{"join-token create --role edge --ttl 30", 2, "did you mean 30s?"},
		{"join-token revoke", 2, "accepts 1 arg(s)"},
		{"cluster", 2, "say what to do: backup, doctor, keys, members, recover, remove, restore, status, transfer"},
		{"cluster bakcup x", 2, `did you mean "backup"?`},
		{"cluster remove", 2, "accepts 1 arg(s)"},
		{"cluster backup", 2, "accepts 1 arg(s)"},
		{"cluster keys", 2, "say what to do: drop, list, new, rotate, rotate-root"},
		{"cluster keys new", 2, "accepts 1 arg(s)"},
		{"proxy", 2, "say what to do: list, remove"},
		{"proxy remove", 2, "accepts 1 arg(s)"},
		{"proxy list e1", 2, "unknown command"},
		{"key", 2, "say what to do: create, list, revoke"},
		{"key crate", 2, `did you mean "create"?`},
		{"key create", 2, "say which App the key is for: --app APP"},
		{"key create --app a --expires soon", 2, "write how long the key lasts, as 12h, 90d or 8w, or when it ends"},
		{"key create --app a --expires -1h", 2, "write how long the key lasts"},
		{"key create --app a --tenant *", 2, "name the tenant of the App"},
		{"key list a", 2, "unknown command"},
		{"key revoke", 2, "accepts 1 arg(s)"},
		{"key revoke a --tenant *", 2, "name the tenant of the key"},
		{"get all x", 2, `there is no kind "all"`},
		{"import", 2, "say what to do: openapi"},
		{"import openapi", 2, "accepts 1 arg(s)"},
		{"export a b", 2, "accepts at most 1 arg(s)"},
		{"join-token create", 2, "--role must be server, edge or sidecar"},
		{"sidecar --data x --service books --address 127.0.0.1:1", 2, "name at least one server with --servers"},
		{"sidecar --data x --servers 127.0.0.1:1 --address 127.0.0.1:1", 2, "name the service with --service"},
		{"sidecar --data x --servers 127.0.0.1:1 --service books", 2, "say where the service takes requests with --address"},
		{"sidecar --data x --servers 127.0.0.1:1 --service books --address 9001", 2, `service address "9001" is not HOST:PORT`},
		{"sidecar --data x --servers 127.0.0.1:1 --service Books --address 127.0.0.1:1", 2, `service "Books" is not a DNS label`},
		{"sidecar --data x --servers 127.0.0.1:1 --service books --address 127.0.0.1:1 --health-path ok", 2, `health path "ok" does not begin with '/'`},
		{"join-token create --role sidecar", 2, "--service"},
		{"join-token create --role edge --service books", 2, "--service"},
		{"join-token create --role king", 2, `not "king"`},
		{"status extra", 2, "unknown command"},
		{"status --admin ftp://x", 2, `--admin "ftp://x" is not an address`},
		{"status --admin 127.0.0.1:1", 1, "hint: see that the server runs"},
		{"status --admin https://127.0.0.1:1/", 1, "cannot reach the admin API at https://127.0.0.1:1: connect: connection refused"},
		{"status --ca /nonexistent", 1, "read --ca: open /nonexistent"},
	} {
		t.Run(c.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Main(strings.Fields(c.args), strings.NewReader(""), &stdout, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit %d, want %d with %q\nstderr: %s", code, c.code, c.want, stderr.String())
			}
			if code != 0 && stdout.Len() > 0 {
				t.Errorf("a failure wrote to standard output: %s", stdout.String())
			}
		})
	}
}

func TestFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("WEIR_OUTPUT", "name")
	var stdout, stderr bytes.Buffer
	if code := Main([]string{"version"}, nil, &stdout, &stderr); code != 0 || stdout.String() != "dev\n" {
		t.Errorf("got %d, %q, %s", code, stdout.String(), stderr.String())
	}
	stdout.Reset()
	if Main([]string{"version", "-o", "json"}, nil, &stdout, &stderr); !strings.HasPrefix(stdout.String(), "{") {
		t.Errorf("the flag does not win: %q", stdout.String())
	}
	t.Setenv("WEIR_OUTPUT", "nonsense")
	if code := Main([]string{"version"}, nil, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), "read WEIR_OUTPUT") {
		t.Errorf("got %d, %s", code, stderr.String())
	}
}

func TestBaseURL(t *testing.T) {
	for _, c := range []struct {
		address string
		secure  bool
		want    string
	}{
		{"127.0.0.1:7401", false, "http://127.0.0.1:7401"},
		{"weir.example", false, "http://weir.example:7401"},
		{"weir.example:80", true, "https://weir.example:80"},
		{"http://weir.example/", true, "http://weir.example:7401"},
		{"https://[::1]", false, "https://[::1]:7401"},
		{"[::1]:1", false, "http://[::1]:1"},
		{"http://weir.example/path", false, ""},
		{"", false, ""},
		{"unix:///run/weir.sock", false, ""},
	} {
		got, err := baseURL(c.address, c.secure)
		if c.want == "" && err == nil || c.want != "" && (err != nil || got.String() != c.want) {
			t.Errorf("%q: got %v, %v, want %s", c.address, got, err, c.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "65536": 65536, "64Ki": 65536, "32Mi": 32 << 20, "1GiB": 1 << 30} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"-1", "1.5Mi", "many", "99999999999999999999", "99999999999Gi"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%s: got %d", text, got)
		}
	}
}

// A watch prints a change when it happens, takes up again where a connection
// broke, and ends well when it is interrupted.
func TestWatch(t *testing.T) {
	cluster, err := admintest.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	stop := serve(t, l, cluster)
	file := t.TempDir() + "/a.yaml"
	apply := func(name string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("kind: Service\nmetadata: {name: "+name+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if code := Main([]string{"apply", "-f", file, "--admin", address}, nil, io.Discard, os.Stderr); code != 0 {
			t.Fatal("apply failed")
		}
	}
	apply("a")
	out, stdout := io.Pipe()
	broke, stderr := io.Pipe()
	code := make(chan int)
	go func() { code <- Main([]string{"watch", "--admin", address}, nil, stdout, stderr) }()
	lines := bufio.NewScanner(out)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	next("1 service/a put")
	apply("b")
	next("2 service/b put")
	stop()
	if message := bufio.NewScanner(broke); !message.Scan() || !strings.Contains(message.Text(), "trying again") {
		t.Errorf("got %q", message.Text())
	}
	go io.Copy(io.Discard, broke)
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	defer serve(t, l, cluster)()
	apply("c")
	next("3 service/c put")
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 0 {
		t.Errorf("exit %d", got)
	}
	stderr.Close()
}

func serve(t *testing.T, l net.Listener, cluster *admintest.Cluster) (stop func()) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	handler, err := admin.New(admintest.Config(cluster, logger))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- admin.Serve(ctx, l, handler, nil, logger) }()
	return func() {
		cancel()
		<-served
	}
}

// What a watch prints for programs has the spelling of all other answers.
func TestEventsForPrograms(t *testing.T) {
	event := &weirv1.WatchResponse{Type: weirv1.WatchResponse_DELETE, Revision: 7, Ref: &weirv1.ResourceRef{Kind: "Route", Tenant: "default", Name: "a"}}
	for f, want := range map[format]string{
		formatTable: "7 route/a deleted\n",
		formatWide:  "7 route/a deleted\n",
		formatName:  "route/a\n",
		formatJSON:  `{"type":"DELETE","revision":7,"ref":{"kind":"Route","tenant":"default","name":"a"}}` + "\n",
		formatYAML:  "---\ntype: DELETE\nrevision: 7\nref:\n  kind: Route\n  tenant: default\n  name: a\n",
	} {
		var out bytes.Buffer
		if err := writeEvent(&out, f, event); err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v, want %q", f, out.String(), err, want)
		}
	}
}
