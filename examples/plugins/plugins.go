// Package plugins holds the example plugins as modules, ready to be pushed:
// what `make build` made of the directories beside this file. Each of those is
// a Go module of its own, as a plugin author's would be.
package plugins

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// The directory always holds a file that is no module, so that this package
// builds before the plugins were built.
//
//go:embed all:wasm
var modules embed.FS

// ErrNotBuilt is wrapped by the error for a plugin that is not in this binary.
var ErrNotBuilt = errors.New("not built: run make build")

// Module returns the module of a plugin, such as "apikey".
func Module(name string) ([]byte, error) {
	module, err := modules.ReadFile("wasm/" + name + ".wasm")
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotBuilt
	}
	if err != nil {
		return nil, fmt.Errorf("open plugin %s: %w", name, err)
	}
	return module, nil
}

// Names lists the plugins that were built, in order.
func Names() []string {
	var names []string
	entries, _ := modules.ReadDir("wasm") // Embedded: it is there.
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".wasm"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
