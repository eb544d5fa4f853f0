package foreign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/weirmesh/weir/policy/plugintest"
)

const source = "../../examples/plugins-foreign"

// language is one that the usher is written in. build builds it, once.
type language struct {
	name  string
	build func() (file string, err error)
}

var languages []language

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "foreign")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, name := range []string{"c", "rust", "assemblyscript"} {
		languages = append(languages, language{name, sync.OnceValues(func() (string, error) {
			return build(name, filepath.Join(dir, name+".wasm"))
		})})
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// noToolchain is what a language's tests are skipped for.
type noToolchain string

func (e noToolchain) Error() string { return string(e) }

func build(language, file string) (string, error) {
	// Opened here, so that the test is run again when a source has changed.
	err := filepath.WalkDir(filepath.Join(source, language), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "node_modules":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(source, "build.sh"), language, file).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		return "", noToolchain(strings.TrimSpace(string(out)))
	}
	if err != nil {
		return "", fmt.Errorf("build the usher in %s: %w\n%s", language, err, out)
	}
	return file, nil
}

// inEach runs a test of the module in each language.
func inEach(t *testing.T, test func(t *testing.T, file string)) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			file, err := l.build()
			var missing noToolchain
			if errors.As(err, &missing) {
				t.Skip(missing)
			}
			if err != nil {
				t.Fatal(err)
			}
			test(t, file)
		})
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCases: what the cases say holds, by the engine alone.
func TestCases(t *testing.T) {
	text := read(t, source+"/cases.yaml")
	inEach(t, func(t *testing.T, file string) {
		cases, err := plugintest.Parse("cases.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		r, err := plugintest.NewRunner(read(t, file), plugintest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				result, err := r.Run(context.Background(), c)
				if err != nil {
					t.Fatal(err)
				}
				if !result.OK {
					t.Errorf("%s\n%s\n%s", strings.Join(result.Problems, "\n"), strings.Join(result.Stack, "\n"), strings.Join(result.Log, "\n"))
				}
			})
		}
	})
}

// TestTheCLI: `weir plugin inspect` and `weir plugin test` take what anyone has built.
func TestTheCLI(t *testing.T) {
	weir := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.Command("go", "build", "-o", weir, "../../cmd/weir").CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	inEach(t, func(t *testing.T, file string) {
		out, err := exec.Command(weir, "plugin", "inspect", file).CombinedOutput()
		for _, want := range []string{"proxy-wasm 0.2.1", " 0 not offered, 0 unknown", "on_http_call_response", "weir plugin push would take it"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("inspect says no %q: %v\n%s", want, err, out)
			}
		}
		if out, err := exec.Command(weir, "plugin", "test", file, source+"/cases.yaml").CombinedOutput(); err != nil {
			t.Errorf("test: %v\n%s", err, out)
		}
	})
}
