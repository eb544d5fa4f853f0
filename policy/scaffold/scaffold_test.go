package scaffold

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheCopyOfTheSDKIsFresh(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "sdk.txtar")
	if out, err := exec.Command("go", "run", "./pack", "../../plugins-sdk", fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(fresh)
	if err != nil || !bytes.Equal(text, sdk) {
		t.Errorf("sdk.txtar is stale: run make generate and commit (%v)", err)
	}
}

// A new plugin compiles, and its tests pass, with nothing but what was written.
func TestANewPluginCompiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "add-stamp")
	written, err := New(Options{Name: "add-stamp", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(written) != 6 {
		t.Errorf("written: %q", written)
	}
	for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %s: %v\n%s", args, err, out)
		}
	}
	formatted, err := exec.Command("gofmt", "-l", dir).CombinedOutput()
	if err != nil || len(formatted) > 0 {
		t.Errorf("gofmt: %v\n%s", err, formatted)
	}
	file, err := Build{Dir: dir}.Run(context.Background())
	if err != nil || file != filepath.Join(dir, "add-stamp.wasm") {
		t.Fatalf("built %q, %v", file, err)
	}
	named, err := Build{Dir: dir, Output: filepath.Join(dir, "named.wasm"), Debug: true}.Run(context.Background())
	if err != nil || size(t, named) <= size(t, file) {
		t.Errorf("with names it has %d bytes, %d without, %v", size(t, named), size(t, file), err)
	}
}

func size(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestNewLosesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Name: "a", Dir: dir}); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
	for _, name := range []string{"", "Stamp", "a/b", "..", "1a", "a-", "a_b", strings.Repeat("a", 64)} {
		if _, err := New(Options{Name: name, Dir: filepath.Join(dir, "x")}); err == nil || !strings.Contains(err.Error(), "is not a name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := New(Options{Name: "a", Dir: filepath.Join(dir, "x"), SDK: dir}); err == nil || !strings.Contains(err.Error(), "does not hold the SDK") {
		t.Error(err)
	}
}

func TestAnotherSDK(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if _, err := New(Options{Name: "a", Dir: dir, SDK: "../../plugins-sdk"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sdk")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy of the SDK is there, too: %v", err)
	}
	if _, err := (Build{Dir: dir}).Run(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeBuilt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := func() error {
		_, err := Build{Dir: dir}.Run(context.Background())
		return err
	}
	want := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s", err, text)
		}
	}
	want(build(), "holds no plugin")
	write("go.mod", "module a\n\ngo 1.26\n")
	write("main.go", "package a\n")
	want(build(), "its package is a, not main")
	write("main.go", "package main\n\nfunc main() { nothing() }\n")
	want(build(), "main.go:3:15: undefined: nothing")

	t.Setenv("PATH", dir)
	if err := build(); !errors.Is(err, ErrNoGo) {
		t.Error(err)
	}
	write("go", "#!/bin/sh\necho go version go1.19.4 linux/amd64\n")
	want(build(), "go1.19.4 is too old: plugins need Go 1.26")
}
