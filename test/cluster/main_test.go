//go:build linux

package cluster

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	all      = flag.Bool("all", false, "run all scenarios, not only the few of the short form")
	baseSeed = flag.Uint64("seed", 1, "decides what is broken, and what clients do")
)

// patience ends a test that would otherwise hang. Nothing is decided by it.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.dir != "" {
			os.RemoveAll(built.dir)
		}
		os.Exit(code)
	}))
}

// inFull marks a scenario that the short form leaves out.
func inFull(t *testing.T) {
	t.Helper()
	if !*all {
		t.Skip("not in the short form: run make scenarios, or go test -all")
	}
}

// built is the program under test, once for all scenarios.
var built struct {
	once sync.Once
	dir  string // to be removed
	path string
	err  error
}

func weir(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("WEIR_BIN"); built.path == "" {
			built.err = build()
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func build() (err error) {
	root := filepath.Join("..", "..")
	if err := look(root); err != nil {
		return err
	}
	if built.dir, err = os.MkdirTemp("", "weir-scenarios-"); err != nil {
		return err
	}
	built.path = filepath.Join(built.dir, "weir")
	return buildTo(root, built.path)
}

func buildTo(root, path string, flags ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", path}, flags, []string{"./cmd/weir"})...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build weir: %w\n%s", err, out)
	}
	return nil
}

// buildTagged builds the program with a tag, for the scenarios that need it.
func buildTagged(t *testing.T, tag string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "weir-"+tag)
	if err := buildTo(filepath.Join("..", ".."), path, "-tags", tag); err != nil {
		t.Fatal(err)
	}
	return path
}

// look lists all directories of sources. That is how go test learns that a
// result is stale when they change: it does not see what go build reads.
func look(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name != ".." && strings.HasPrefix(name, ".") || name == "bin" {
			return filepath.SkipDir
		}
		return nil
	})
}

// bounded is a context that ends when patience does.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// await waits until a condition holds. What is missing, it says as an error.
func await(t *testing.T, what string, missing func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := missing(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("await %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
