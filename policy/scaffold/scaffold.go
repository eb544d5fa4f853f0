// Package scaffold makes a plugin's directory, which compiles at once, and builds
// what is in one.
//
// The SDK comes along: [New] writes it beside the plugin, and the plugin's go.mod
// points there. So a plugin is built with the SDK that its program was made
// with, without a network, and without asking whether that version can be
// fetched. Who has the SDK elsewhere points there instead ([Options]).
//
// sdk.txtar is a copy of plugins-sdk less its tests; go generate makes it, and a
// test that it is fresh.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/rogpeppe/go-internal/txtar"
)

//go:generate go run ./pack ../../plugins-sdk sdk.txtar

//go:embed sdk.txtar
var sdk []byte

//go:embed template
var templates embed.FS

// SDKModule is the path of the SDK's module.
const SDKModule = "github.com/weirmesh/weir/plugins-sdk"

// GoVersion is the least that the SDK is built with.
const GoVersion = "1.26"

// Options say what is made.
type Options struct {
	// Name is the plugin's.
	Name string
	// Dir is where it goes. It may exist, if nothing is in it.
	Dir string
	// SDK is a directory that holds the SDK; empty: a copy is put beside the
	// plugin.
	SDK string
}

// name is what is a plugin's name and a path of a Go module, too.
var name = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// New makes the directory, and returns the files that it has written, without
// those of the SDK.
func New(o Options) (written []string, err error) {
	if !name.MatchString(o.Name) {
		return nil, fmt.Errorf("make plugin: %q is not a name: lower-case letters, digits and -, beginning with a letter", o.Name)
	}
	if err := empty(o.Dir); err != nil {
		return nil, fmt.Errorf("make plugin: %w", err)
	}
	path := "./sdk"
	if o.SDK != "" {
		if path, err = existing(o.SDK); err != nil {
			return nil, fmt.Errorf("make plugin: %w", err)
		}
	}
	if written, err = fill(o, path); err != nil {
		return nil, fmt.Errorf("make plugin: %w", err)
	}
	if o.SDK == "" {
		if err := unpack(filepath.Join(o.Dir, "sdk")); err != nil {
			return nil, fmt.Errorf("make plugin: %w", err)
		}
	}
	return written, nil
}

// empty makes a directory, or sees that nothing in it can be lost.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty: name another directory with --dir", dir)
	}
	return nil
}

func existing(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !bytes.Contains(text, []byte("module "+SDKModule+"\n")) {
		return "", fmt.Errorf("%s does not hold the SDK: its go.mod is not that of %s", dir, SDKModule)
	}
	return filepath.Abs(dir)
}

func fill(o Options, sdkPath string) (written []string, err error) {
	files, err := fs.Glob(templates, "template/*.tmpl")
	if err != nil {
		return nil, err
	}
	values := struct{ Name, Type, SDK, Module, Go string }{o.Name, typeName(o.Name), sdkPath, SDKModule, GoVersion}
	for _, file := range files {
		t, err := template.New(filepath.Base(file)).Delims("<<", ">>").ParseFS(templates, file)
		if err != nil {
			return nil, err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, values); err != nil {
			return nil, err
		}
		to := filepath.Join(o.Dir, strings.TrimSuffix(filepath.Base(file), ".tmpl"))
		if err := os.WriteFile(to, text.Bytes(), 0o644); err != nil {
			return nil, err
		}
		written = append(written, to)
	}
	return written, nil
}

// typeName makes addStamp of add-stamp; a word that Go keeps for itself gets
// another behind it.
func typeName(name string) string {
	words := strings.Split(name, "-")
	for i := 1; i < len(words); i++ {
		words[i] = strings.ToUpper(words[i][:min(1, len(words[i]))]) + words[i][min(1, len(words[i])):]
	}
	return strings.Join(words, "") + "Policy"
}

func unpack(dir string) error {
	for _, f := range txtar.Parse(sdk).Files {
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
