//go:build linux

package tour

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/test/hosts"
)

const patience = 2 * time.Minute

// A step is a command of the tour, and what is said of it.
type step struct{ command, comment string }

// steps are the commands of README.md between two headings.
func steps(t *testing.T) (found []step) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, tour, _ := strings.Cut(string(page), "\n## Five minutes\n")
	tour, _, _ = strings.Cut(tour, "\n## ")
	for _, block := range strings.Split(tour, "```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for line := range strings.Lines(block) {
			command, comment, _ := strings.Cut(strings.TrimSpace(line), " # ")
			if command != "" {
				found = append(found, step{strings.TrimSpace(command), strings.TrimSpace(comment)})
			}
		}
	}
	if len(found) < 20 {
		t.Fatalf("the tour has %d commands", len(found))
	}
	return found
}

// program is what a command begins with, variables aside.
func (s step) program() string {
	for _, word := range strings.Fields(s.command) {
		if name, _, assigns := strings.Cut(word, "="); !assigns || strings.ContainsAny(name, "-'\"") {
			return word
		}
	}
	return ""
}

var (
	status = regexp.MustCompile(`\b[1-5]\d\d\b`)
	begins = regexp.MustCompile(`^[1-5]\d\d\b`)
)

// kept tells what is wrong with what a command printed and how it exited.
func (s step) kept(printed string, exit int) error {
	if wanted := strings.Contains(s.comment, "exits 1"); (exit != 0) != wanted {
		return fmt.Errorf("it exits %d", exit)
	}
	if strings.TrimSpace(printed) == "" && (strings.HasPrefix(s.command, "curl") || strings.Contains(s.command, "| grep")) {
		return fmt.Errorf("it prints nothing")
	}
	if !begins.MatchString(s.comment) {
		return nil
	}
	for _, code := range status.FindAllString(s.comment, -1) {
		if !regexp.MustCompile(`(?m)^(HTTP/1\.1 )?` + code + `\b`).MatchString(printed) {
			return fmt.Errorf("it has no status %s", code)
		}
	}
	return nil
}

// shell is one shell, which runs one command after another.
type shell struct {
	t    *testing.T
	host *hosts.Host
	env  []string
	dir  string
}

// run runs a command after those variables that were set before.
func (s *shell) run(command string) (printed string, exit int) {
	s.t.Helper()
	var out bytes.Buffer
	script := "exec 2>&1; [ ! -e state ] || . ./state\n" + command + "\necho \"exit $?\" >exit; set >state"
	p := s.host.Command(s.t.Context(), "/bin/sh", "-c", script)
	p.Env, p.Dir, p.Stdout = s.env, s.dir, &out
	p.Start()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_ = p.Wait(ctx) // how the command exited stands in the file
	text, err := os.ReadFile(filepath.Join(s.dir, "exit"))
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", command, err, out.String())
	}
	if _, err := fmt.Sscanf(string(text), "exit %d", &exit); err != nil {
		s.t.Fatal(err)
	}
	return out.String(), exit
}

func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the demo's plugins, which takes seconds")
	}
	for _, tool := range []string{"curl", "sed", "seq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the tour needs %s", tool)
		}
	}
	if modules, _ := filepath.Glob("../../examples/plugins/wasm/*.wasm"); len(modules) == 0 {
		t.Skip("the plugins are not built: make plugins")
	}
	host := hosts.New(t, 1)[0]
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "weir"), "./cmd/weir")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	s := &shell{t: t, host: host, dir: dir, env: []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "kept")}}
	demo := host.Command(t.Context(), filepath.Join(dir, "weir"), "dev", "--demo", "--access-log", "off")
	demo.Env = s.env
	demo.Start()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := demo.WaitOutput(ctx, "weir: ready"); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps(t) {
		if _, err := exec.LookPath(step.program()); err != nil && step.program() == "grpcurl" {
			t.Logf("left out, since grpcurl is not installed: %s", step.command)
			continue
		}
		printed, exit := s.run(step.command)
		err := step.kept(printed, exit)
		if err != nil && strings.HasPrefix(step.command, "for ") { // the minute turned in between
			printed, exit = s.run(step.command)
			err = step.kept(printed, exit)
		}
		if err != nil {
			t.Errorf("%s # %s\n%v:\n%s", step.command, step.comment, err, printed)
		}
	}
}
