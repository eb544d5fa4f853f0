package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// guest is testdata/guest, built by stock Go, and cacheDir a cache that all
// tests share, so that it is compiled once.
var (
	guest    []byte
	cacheDir string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "wasm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cacheDir = filepath.Join(dir, "cache")
	if guest, err = buildGuest(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func buildGuest(dir string) ([]byte, error) {
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build guest: %w\n%s", err, out)
	}
	return os.ReadFile(file)
}

func digest(module []byte) string {
	sum := sha256.Sum256(module)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// journal keeps what is logged.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, strings.TrimSpace(string(b)))
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// fixture is a host with modules and a journal.
type fixture struct {
	t       testing.TB
	host    *Host
	journal *journal
	modules map[string][]byte
}

func newFixture(t testing.TB, config Config) *fixture {
	t.Helper()
	f := &fixture{t: t, journal: &journal{}, modules: map[string][]byte{digest(guest): guest}}
	config.CacheDir = cacheDir
	config.Modules = func(_ context.Context, digest string) ([]byte, error) {
		if m, ok := f.modules[digest]; ok {
			return m, nil
		}
		return nil, errors.New("no such module")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(f.journal, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	host, err := NewHost(config)
	if err != nil {
		t.Fatal(err)
	}
	f.host = host
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func spec(config string) policy.Spec {
	return policy.Spec{Tenant: "t", Name: "stamp", Plugin: "guest", Digest: digest(guest), Config: config,
		FailureMode: weirv1.PolicySpec_CLOSED, StopIteration: true}
}

// make makes a policy that is released when the test ends.
func (f *fixture) make(s policy.Spec) *use {
	f.t.Helper()
	p, err := f.host.Make(context.Background(), s, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(p.Release)
	return p.(*use)
}

// message is a request or a response as a test writes it: a head, and a body in
// pieces.
type message struct {
	status int
	fields string // "name: value\n…"
	body   []string
}

func (m message) into(x *exchange.Exchange, fields *exchange.Fields, body *exchange.Body) {
	for line := range strings.Lines(m.fields) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			fields.Add([]byte(name), []byte(value))
		}
	}
	if m.body != nil {
		*body = &pieces{m.body}
	}
}

type pieces struct{ left []string }

func (p *pieces) Length() int64 { return -1 }
func (p *pieces) Next() ([]byte, error) {
	if len(p.left) == 0 {
		return nil, io.EOF
	}
	b := []byte(p.left[0])
	p.left = p.left[1:]
	return b, nil
}

func newExchange() *exchange.Exchange {
	x := &exchange.Exchange{
		ID: []byte("id-1"), Start: time.Now(), Protocol: exchange.HTTP11, Route: "t/books", Service: "t/books-service",
		Consumer: &exchange.Consumer{Tenant: "t", App: "demo", Credential: "demo-1", Subscription: "demo-free", Plan: "free"},
		Client:   netip.MustParseAddrPort("192.0.2.1:1234"), Local: netip.MustParseAddrPort("192.0.2.2:80"), Revision: 7,
	}
	x.Request.Method, x.Request.Scheme = []byte("GET"), []byte("http")
	x.Request.Authority, x.Request.Path = []byte("shop.example"), []byte("/books?id=1")
	return x
}

// outcome is what came of an exchange.
type outcome struct {
	request, response string // heads, as text
	asked, got        string // bodies
	err               error
	x                 *exchange.Exchange
}

// serve runs an exchange through a chain of the policies.
func serve(policies []policy.Policy, request, response message) outcome {
	return serveChain(policy.NewChain(policies, policy.ChainConfig{}), request, response)
}

func serveChain(c *policy.Chain, request, response message) (o outcome) {
	x := newExchange()
	o.x = x
	request.into(x, &x.Request.Fields, &x.Request.Body)
	run := c.Begin(x)
	defer run.Close()
	out, err := run.Request()
	if err == nil && out == policy.Proceed {
		o.request = fmt.Sprintf("%s %s %s", x.Request.Method, x.Request.Authority, x.Request.Path) + show(&x.Request.Fields)
		if o.asked, err = readAll(x.Request.Body); err == nil {
			x.Response.Status = max(response.status, 200)
			response.into(x, &x.Response.Fields, &x.Response.Body)
		}
	}
	if err != nil && !errors.Is(err, policy.ErrAnswered) {
		o.err = err
		return o
	}
	if o.err = run.Response(); o.err != nil {
		return o
	}
	o.response = fmt.Sprint(x.Response.Status) + show(&x.Response.Fields)
	o.got, o.err = readAll(x.Response.Body)
	return o
}

func show(fields *exchange.Fields) string {
	var out strings.Builder
	for i := range fields.Len() {
		f := fields.At(i)
		fmt.Fprintf(&out, "\n%s: %s", bytes.ToLower(f.Name), f.Value)
	}
	return out.String()
}

func readAll(b exchange.Body) (string, error) {
	var all strings.Builder
	for b != nil {
		chunk, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return all.String(), err
		}
		all.Write(chunk)
	}
	return all.String(), nil
}

// do asks the guest for commands: see testdata/guest.
func do(commands string, more ...string) message {
	return message{fields: "x-do: " + commands + "\n" + strings.Join(more, "\n")}
}

// value finds a field in a head of an outcome.
func value(head, name string) string {
	for line := range strings.Lines(head) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), name+": "); ok {
			return v
		}
	}
	return ""
}
