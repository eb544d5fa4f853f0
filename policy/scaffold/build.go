package scaffold

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Build is how a plugin is built.
type Build struct {
	// Dir is where its main package is.
	Dir string
	// Output is the module's file; empty: named after the Go module, in Dir.
	Output string
	// Debug keeps the names of functions, which traps then tell.
	Debug bool
}

// ErrNoGo says that there is no Go to build with.
var ErrNoGo = errors.New("go is not installed, or not in PATH: plugins need Go " + GoVersion + " or later (https://go.dev/dl)")

// oldestMinor is of the oldest Go that fetches a newer one which go.mod asks for.
const oldestMinor = 21

// Run builds the plugin with the go command, and returns the module's file. What
// the compiler says is part of the error.
func (b Build) Run(ctx context.Context) (file string, err error) {
	if _, err := os.Stat(b.Dir); err != nil {
		return "", fmt.Errorf("build plugin: %w", err)
	}
	if err := checkGo(ctx); err != nil {
		return "", fmt.Errorf("build plugin: %w", err)
	}
	if file, err = b.output(ctx); err != nil {
		return "", fmt.Errorf("build plugin: %w", err)
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("build plugin: %w", err)
	}
	args := []string{"build", "-buildmode=c-shared", "-trimpath"}
	if !b.Debug {
		args = append(args, "-ldflags=-s -w")
	}
	if _, err := b.goes(ctx, append(args, "-o", absolute, ".")...); err != nil {
		return "", fmt.Errorf("build plugin in %s: %w", b.Dir, err)
	}
	return file, nil
}

// output names the module after the last element of the Go module's path.
func (b Build) output(ctx context.Context) (string, error) {
	if b.Output != "" {
		return b.Output, nil
	}
	out, err := b.goes(ctx, "list", "-f", "{{.Name}} {{.ImportPath}}", ".")
	if err != nil {
		return "", fmt.Errorf("%s holds no plugin: %w", b.Dir, err)
	}
	kind, path, _ := strings.Cut(strings.TrimSpace(out), " ")
	if kind != "main" {
		return "", fmt.Errorf("%s holds no plugin: its package is %s, not main", b.Dir, kind)
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	return filepath.Join(b.Dir, base+".wasm"), nil
}

// goes runs the go command for the sandbox. What it has to say when it fails is
// the error.
func (b Build) goes(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if text := strings.TrimSpace(said.String()); text != "" {
			return "", errors.New(text)
		}
		return "", err
	}
	return out.String(), nil
}

// checkGo sees that there is a go command which is new enough, or can get one
// that is.
func checkGo(ctx context.Context) error {
	if _, err := exec.LookPath("go"); err != nil {
		return ErrNoGo
	}
	out, err := exec.CommandContext(ctx, "go", "version").Output()
	if err != nil {
		return fmt.Errorf("ask go for its version: %w", err)
	}
	words := strings.Fields(string(out)) // go version go1.26.0 linux/amd64
	if len(words) < 3 {
		return nil
	}
	if minor, known := minorOf(words[2]); known && minor < oldestMinor {
		return fmt.Errorf("%s is too old: plugins need Go %s or later (https://go.dev/dl)", words[2], GoVersion)
	}
	return nil
}

func minorOf(version string) (int, bool) {
	rest, ok := strings.CutPrefix(version, "go1.")
	digits, _, _ := strings.Cut(rest, ".")
	minor, err := strconv.Atoi(digits)
	return minor, ok && err == nil
}
