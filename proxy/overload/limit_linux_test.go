package overload

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimitOfControlGroups(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"memory.max":                       "max\n",
		"a/memory.max":                     "2000000\n",
		"a/b/memory.max":                   "3000000\n",
		"c/memory.max":                     "max\n",
		"e/memory.max":                     "nonsense",
		"memory/d/memory.limit_in_bytes":   "9223372036854771712\n",
		"memory/d/e/memory.limit_in_bytes": "1000000\n",
	} {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for own, want := range map[string]int64{
		"0::/a/b\n": 2000000, "0::/a\n": 2000000, "0::/c\n": 0, "0::/\n": 0, "0::/e\n": 0, "0::/gone\n": 0, "": 0, "nonsense": 0,
		"12:cpu:/x\n9:memory:/d/e\n": 1000000, "9:memory:/d\n0::/c\n": 0, "0::/../../a\n": 2000000,
	} {
		if got := limitOf(root, []byte(own)); got != want {
			t.Errorf("%q: %d, want %d", own, got, want)
		}
	}
}
