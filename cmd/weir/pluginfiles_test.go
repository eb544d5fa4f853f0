package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a plugin is made of is looked at, and nothing else that may change beside.
func TestPluginFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(file, text string) {
		t.Helper()
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plugin := filepath.Join(dir, "plugin")
	write("plugin/main.go", "package main")
	write("plugin/inner/table.go", "package inner")
	write("stamp.yaml", "a: 1")
	w := pluginFiles{source: plugin, config: filepath.Join(dir, "stamp.yaml")}
	for _, c := range []struct {
		name, file, text string
		counts           bool
	}{
		{"a source file", "plugin/main.go", "package main // changed", true},
		{"one that is new", "plugin/more.go", "package main", true},
		{"one of a package below", "plugin/inner/table.go", "package inner // changed", true},
		{"what is embedded", "plugin/table.csv", "1,2", true},
		{"the config", "stamp.yaml", "a: 22", true},
		{"the module that is built there", "plugin/plugin.wasm", "asm", false},
		{"what an editor keeps", "plugin/.main.go.swp", "x", false},
		{"what a version control keeps", "plugin/.git/index", "x", false},
		{"what tests read", "plugin/testdata/a", "x", false},
	} {
		before := w.look()
		write(c.file, c.text)
		if changed := w.look() != before; changed != c.counts {
			t.Errorf("%s: a change counts: %v", c.name, changed)
		}
	}
	before := w.look()
	go func() {
		time.Sleep(10 * time.Millisecond) // nothing hangs on it: a change before await is one, too
		_ = os.Remove(filepath.Join(plugin, "more.go"))
	}()
	if after, err := w.await(t.Context(), before); err != nil || after == before {
		t.Errorf("a file that was removed: %v", err)
	}
}
