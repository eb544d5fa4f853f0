package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/weirmesh/weir/internal/freeport"
)

// A process says when it is ready, answers the other verbs, and ends with 0 when
// it is told to stop.
func TestDevProcess(t *testing.T) {
	admin := freeport.Address(t)
	stdout, out := io.Pipe()
	var log lockedBuffer
	exit := make(chan int, 1)
	go func() {
		exit <- Main([]string{"dev", "--data", filepath.Join(t.TempDir(), "data"), "--node", "127.0.0.1:0", "--admin", admin,
			"--portal", "127.0.0.1:0", "--proxy-admin", freeport.Address(t), "--access-log", "off"}, nil, out, &log)
		out.Close()
	}()
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "weir: ready" {
		t.Fatalf("the first line is %q; the log: %s", lines.Text(), log.String())
	}
	var answer, complaint bytes.Buffer
	if code := Main([]string{"status", "-o", "json", "--admin", admin}, nil, &answer, &complaint); code != 0 || !strings.Contains(answer.String(), `"leader"`) {
		t.Errorf("status: exit %d, %s%s", code, answer.String(), complaint.String())
	}
	for args, want := range map[string]string{
		"cluster status -o json":  `"leader": "dev"`,
		"cluster members -o json": `"role": "VOTER"`,
		"cluster members":         "dev      voter   leader",
		"get all --stale":         "public",
	} {
		answer.Reset()
		code := Main(append(strings.Fields(args), "--admin", admin), nil, &answer, &complaint)
		if want == "public" && strings.Contains(log.String(), "its port is taken") { // 8080, which many programs like
			want = ""
		}
		if code != 0 || !strings.Contains(answer.String(), want) {
			t.Errorf("%s: exit %d, %s%s; the log: %s", args, code, answer.String(), complaint.String(), log.String())
		}
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if lines.Scan() {
		t.Errorf("it also printed %q", lines.Text())
	}
	select {
	case code := <-exit:
		if code != 0 {
			t.Errorf("exit %d; the log: %s", code, log.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not stop")
	}
}

// The demo keeps what it declares away from what its user declares; what it
// cannot listen on comes with a hint.
func TestDemoHasADirectoryOfItsOwn(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	mine := filepath.Join(state, "mine")
	for args, directory := range map[string]string{
		"dev": filepath.Join(state, "weir", "dev"), "dev --demo": filepath.Join(state, "weir", "demo"), "dev --demo --data " + mine: mine,
	} {
		var stderr bytes.Buffer
		code := Main(append(strings.Fields(args), "--node", "127.0.0.1:0", "--admin", taken.Addr().String()), nil, io.Discard, &stderr)
		if code != 1 || !strings.Contains(stderr.String(), "hint: another program listens there") {
			t.Errorf("%s: exit %d, %s", args, code, stderr.String())
		}
		if _, err := os.Stat(directory); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestProcessFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"server", "name a directory with --data"},
		{"server --data x --name a --bootstrap --join b:7400", "begins in one way"},
		{"server --data x --name a --bootstrap-expect 3", "say where they are with --join"},
		{"server --data x --name a --join b", `join address "b" is not HOST:PORT`},
		{"server --data x --dead-after 3d", "did you mean 72h?"},
		{"server --data x --dead-after 5ms", "at least 1s, or off"},
		{"edge --data x", "name at least one server with --servers"},
		{"edge --data x --servers a:1 --labels zone", "must be formatted as key=value"},
		{"edge --data x --servers a", `server address "a" is not HOST:PORT`},
		{"edge --data x --servers a:1 --name E", `name "E" is not a DNS label`},
		{"dev --log-level loud", "--log-level must be debug, info, warn or error"},
		{"dev --log-format xml", "--log-format must be text or json"},
		{"dev now", "unknown command"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			var stderr bytes.Buffer
			if code := Main(strings.Fields(c.args), nil, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("exit %d, want 2 with %q: %s", code, c.want, stderr.String())
			}
		})
	}
}

// A node that is not admitted needs another token, and not that of admin.env.
func TestHintsOfProcesses(t *testing.T) {
	refused := connect.NewError(connect.CodeUnauthenticated, "the join token is not valid")
	if got := hintFor(&processError{cause: refused}); !strings.Contains(got, "weir join-token create") {
		t.Errorf("a process: %q", got)
	}
	if got := hintFor(&processError{refused, "server"}); !strings.Contains(got, "--role server") {
		t.Errorf("a server: %q", got)
	}
	taken := connect.NewError(connect.CodeAlreadyExists, "a node of that name is there now")
	if got := hintFor(&processError{taken, "server"}); !strings.Contains(got, "--name") || !strings.Contains(got, "weir cluster remove") {
		t.Errorf("a name that is taken: %q", got)
	}
	if got := hintFor(refused); !strings.Contains(got, "WEIR_TOKEN") {
		t.Errorf("a call: %q", got)
	}
}
