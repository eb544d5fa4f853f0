package schema

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/google/jsonschema-go/jsonschema" // its module has the suite
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// group is one schema of JSON Schema's own suite, with values.
type group struct {
	Description string
	Schema      json.RawMessage
	Tests       []struct {
		Description string
		Data        json.RawMessage
		Valid       bool
	}
}

func suite(t testing.TB, draft string) map[string][]group {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/jsonschema-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "jsonschema", "testdata", draft, "*.json"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	all := map[string][]group{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var groups []group
		if err := json.Unmarshal(text, &groups); err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".json")] = groups
	}
	return all
}

// JSON Schema's own suite, of which a document has all that does not leave it.
func TestSuite(t *testing.T) {
	for draft, dialect := range map[string]Dialect{"draft2020-12": Draft2020, "draft7": Draft4} {
		cases, refused := 0, 0
		for name, groups := range suite(t, draft) {
			for _, g := range groups {
				if draft == "draft7" && g.Schema[0] != '{' {
					continue // it is no schema in the dialect that documents have
				}
				s, err := compiled(g.Schema, draft, dialect)
				if err != nil {
					if why := err.Error(); !strings.Contains(why, "no URLLoader") && !strings.Contains(why, "$dynamicRef") && name != "refRemote" {
						t.Errorf("%s %s, %s: %v", draft, name, g.Description, err)
					}
					refused += len(g.Tests)
					continue
				}
				for _, c := range g.Tests {
					var by Checker
					v, err := by.Read(c.Data)
					if err != nil {
						t.Errorf("%s %s, %s, %s: %v", draft, name, g.Description, c.Description, err)
						continue
					}
					wrong, err := by.Check(s, &v)
					if err != nil || (len(wrong) == 0) != c.Valid {
						t.Errorf("%s %s, %s, %s: %s\nwant valid %v, got %v, %v", draft, name, g.Description, c.Description, c.Data, c.Valid, wrong, err)
					}
					cases++
				}
			}
		}
		t.Logf("%s: %d cases, %d of schemas that are refused", draft, cases, refused)
		if cases < 850 || refused > 100 {
			t.Errorf("%s: %d cases, %d refused", draft, cases, refused)
		}
	}
}

func compiled(text []byte, draft string, dialect Dialect) (*Schema, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if o, ok := document.(map[string]any); ok && draft == "draft7" {
		o["$schema"] = "http://json-schema.org/draft-07/schema#"
	}
	c, err := NewCompiler(document, dialect)
	if err != nil {
		return nil, err
	}
	return c.Compile("")
}
