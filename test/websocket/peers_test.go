package websocket

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/edge"
)

func TestMain(m *testing.M) {
	switch os.Getenv(peerEnv) {
	case "server":
		serveCoder()
	case "client":
		askCoder()
	default:
		os.Exit(m.Run())
	}
}

// peer is a library, as a program that is told its role.
type peer struct {
	name    string
	command func(role string) (*exec.Cmd, error) // an error says what is missing
}

var peers = []peer{
	{"coder", func(role string) (*exec.Cmd, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), peerEnv+"="+role)
		return cmd, nil
	}},
	{"python", func(role string) (*exec.Cmd, error) {
		for _, python := range []string{"/usr/bin/python3", "python3"} {
			if exec.Command(python, "-c", "import websockets.legacy.client").Run() == nil {
				return exec.Command(python, "peers/peer.py", role), nil
			}
		}
		return nil, errors.New("no python3 with websockets (Debian: python3-websockets)")
	}},
	{"ws", func(role string) (*exec.Cmd, error) {
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, errors.New("no node (Debian: nodejs)")
		}
		if _, err := os.Stat(filepath.Join("peers", "node_modules", "ws")); err != nil {
			return nil, errors.New("no ws (npm ci in test/websocket/peers)")
		}
		return exec.Command(node, "peers/peer.js", role), nil
	}},
}

// program is a peer that runs until its test ends.
type program struct {
	*exec.Cmd
	in    io.WriteCloser
	ended chan struct{} // its output has

	mu       sync.Mutex
	outcomes map[string]chan outcome
}

// run starts a peer, or skips the test when it is missing. What it says is handed
// to those who wait for it.
func (p peer) run(t *testing.T, role string) *program {
	t.Helper()
	cmd, err := p.command(role)
	if err != nil {
		t.Skip(err)
	}
	r := &program{Cmd: cmd, ended: make(chan struct{}), outcomes: map[string]chan outcome{}}
	cmd.Stderr = t.Output()
	if r.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	lines, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go r.read(lines)
	t.Cleanup(func() {
		_ = r.Process.Kill() // it may have ended
		<-r.ended
		_ = r.Wait() // it was killed
	})
	return r
}

func (r *program) read(lines io.Reader) {
	defer close(r.ended)
	in := bufio.NewReader(lines)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var o outcome
		if err := json.Unmarshal(line, &o); err != nil {
			o = outcome{Stuck: fmt.Sprintf("says %q", line)}
		}
		r.of(o.ID) <- o
	}
}

// of is where the outcome of a conversation arrives.
func (r *program) of(id string) chan outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.outcomes[id]
	if c == nil {
		c = make(chan outcome, 1)
		r.outcomes[id] = c
	}
	return c
}

// await waits for the outcome of a conversation; its first word has no id.
func (r *program) await(t *testing.T, id string) outcome {
	t.Helper()
	select {
	case o := <-r.of(id):
		r.mu.Lock()
		delete(r.outcomes, id)
		r.mu.Unlock()
		return o
	case <-r.ended:
		t.Fatalf("%s has ended", r)
	case <-time.After(edge.Patience):
		t.Fatalf("%s does not tell what became of conversation %s", r, id)
	}
	panic("not reached")
}

func (r *program) do(t *testing.T, j job) {
	t.Helper()
	b, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.in.Write(append(b, '\n')); err != nil {
		t.Fatal(err)
	}
}

// servers are the servers at hand.
func servers(t *testing.T) (at map[string]*program, addresses map[string]string) {
	at, addresses = map[string]*program{}, map[string]string{}
	for _, p := range peers {
		if _, err := p.command("server"); err != nil {
			t.Logf("without %s: %v", p.name, err)
			continue
		}
		at[p.name] = p.run(t, "server")
		addresses[p.name] = at[p.name].await(t, "").Listening
	}
	return at, addresses
}
