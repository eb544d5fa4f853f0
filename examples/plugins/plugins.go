// Package plugins holds plugins as modules, ready to be pushed: what `make build`
// made of the directories beside this file. Each of those is a Go module of its own, as
// a plugin author's would be. The standard policies are one of them: the same module
// under several names.
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

// standard are the policies that are in standard.wasm.
var standard = []string{"apikey", "basicauth", "introspection", "ipfilter", "jwt", "ratelimit", "signature", "sizelimit", "transform"}

// standardFile is without its ending what they are in.
const standardFile = "standard"

// Standard lists the names of the standard policies.
func Standard() []string { return slices.Clone(standard) }

// ErrNotBuilt is wrapped by the error for a plugin that is not in this binary.
var ErrNotBuilt = errors.New("not built: run make build")

// Module returns the module of a plugin, such as "apikey".
func Module(name string) ([]byte, error) {
	file := name
	if slices.Contains(standard, name) {
		file = standardFile
	}
	module, err := modules.ReadFile("wasm/" + file + ".wasm")
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
		name, ok := strings.CutSuffix(entry.Name(), ".wasm")
		switch {
		case ok && name == standardFile:
			names = append(names, standard...)
		case ok:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
