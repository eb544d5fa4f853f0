package contract

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Documents of others, which come with the library whose schema of documents this
// uses: small and large ones are compiled, broken ones are refused in words.
func TestOtherPeoplesDocuments(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/pb33f/libopenapi").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{ // what is refused
		"asana.yaml": "", "petstorev3.json": "",
		"xsoar.json":                     "Swagger 2.0",
		"badref-burgershop.openapi.yaml": "line 56: /paths/~1burgers/post/responses/200/content/application~1json/schema/$ref: it refers to another",
		"burgershop.openapi.yaml":        "line 370: /components/securitySchemes/JWTScheme/name: nothing may stand here",
		"roundtrip.yaml":                 "line 2: /info: missing property 'version'",
		"all-the-components.yaml":        "line 289: /components/headers/MyHeader: missing property 'schema'",
		"digitalocean.yaml":              "another document",
		"redocly-starter.yaml":           "line 75: /paths/~1users~1{username}/$ref: it refers to another document",
	} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "test_specs", name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Compile(text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want == "" && len(c.Operations()) == 0:
			t.Errorf("%s: no operations", name)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}
