package plugintest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCasesOfConnections: pieces, what comes out of them, and how it ends, with a module
// that speaks the ABI by itself.
func TestCasesOfConnections(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "../wasm/testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRunner(module, options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct{ name, about, problem string }{
		{"bytes each way", `connection: {pieces: [{client: "he", toService: ""}, {client: "llo\n", toService: "> hello\n"}, {service: hi, toClient: HI}]}`, ""},
		{"the end", `connection: {pieces: [{client: bye, end: true, toService: "> bye"}, {service: so long, end: true, toClient: SO LONG}]}
  expect: {verdict: continue, log: ["the client's connection is closed by its end", "the service's connection is closed by its end"]}`, ""},
		{"what is let go", `connection: {pieces: [{service: "one (wait)", toClient: ""}, {client: "release\n", toService: "release\n", toClient: "one (wait)"}]}`, ""},
		{"closed", `connection: {pieces: [{client: "close\n"}]}
  expect: {verdict: close}`, ""},
		{"closed at once", `config: connect close
  connection: {pieces: [{client: never}]}
  expect: {verdict: close}`, ""},
		{"a trap", `connection: {pieces: [{client: "trap\n"}]}
  expect: {verdict: fail, error: proxy_on_downstream_data, log: "panic: connection"}`, ""},
		{"properties", `client: 192.0.2.9:77
  connection: {serverName: db.example, pieces: [{client: "property connection/requested_server_name\n", toService: "db.example 0\n"}, {client: "property source/address\n", toService: "192.0.2.9:77 0\n"}]}`, ""},
		{"again", `repeat: 2
  connection: {pieces: [{client: "a\n", toService: "> a\n"}]}
  expect: {maxFuel: 1000000}`, ""},
		{"something else comes out", `connection: {pieces: [{client: "hello\n", toService: "hello\n"}]}`, "piece 1, to the service: "},
		{"nothing comes out", `connection: {pieces: [{client: "he"}, {client: "llo", toService: "> hello"}]}`, `piece 2, to the service: "", want "> hello"`},
		{"it is not closed", `connection: {pieces: [{client: "a\n"}]}
  expect: {verdict: close}`, "verdict: continue, want close"},
		{"an unexpected trap", `connection: {pieces: [{client: "trap\n"}]}`, "the plugin failed"},
		{"fuel", `connection: {pieces: [{client: "a\n"}]}
  expect: {fuel: 1}`, "fuel: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cases, err := Parse("cases.yaml", []byte("cases:\n- name: it\n  "+c.about))
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Run(context.Background(), cases[0])
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(got.Problems, "\n")
			if c.problem == "" && !got.OK || !strings.Contains(said, c.problem) || c.problem != "" && got.OK {
				t.Errorf("problems %q, want %q\n%s", said, c.problem, strings.Join(got.Log, "\n"))
			}
			again, err := r.Run(context.Background(), cases[0])
			if err != nil || again.Fuel != got.Fuel || got.Fuel == 0 && got.Verdict == Continued {
				t.Errorf("fuel %d, then %d: %v", got.Fuel, again.Fuel, err)
			}
		})
	}
}

func TestAModuleWithoutCodeForConnections(t *testing.T) {
	for _, r := range run(t, "cases:\n- name: a\n  connection: {pieces: [{client: x}]}\n  expect: {verdict: fail, error: has no code for connections}") {
		if !r.OK {
			t.Error(r.Problems)
		}
	}
}
