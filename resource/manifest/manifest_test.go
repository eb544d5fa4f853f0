package manifest_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each file of testdata/problems holds shop.yaml and the problems found in it.
func TestProblems(t *testing.T) {
	files, _ := filepath.Glob("testdata/problems/*.txt")
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = manifest.Parse("shop.yaml", archive.Files[0].Data)
			var problems manifest.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			got := problems.Error() + "\n"
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What people write becomes what Weir writes, and that is read as the same.
func TestGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/golden/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	written := parse(t, "shop.yaml", data)
	var asYAML, asJSON bytes.Buffer
	if err := errors.Join(manifest.WriteYAML(&asYAML, written...), manifest.WriteList(&asJSON, written)); err != nil {
		t.Fatal(err)
	}
	for file, got := range map[string][]byte{"shop.out.yaml": asYAML.Bytes(), "shop.out.json": asJSON.Bytes()} {
		t.Run(file, func(t *testing.T) {
			golden := filepath.Join("testdata/golden", file)
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(written, parse(t, file, got), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func parse(t *testing.T, file string, data []byte) []*weirv1.Resource {
	t.Helper()
	items, err := manifest.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	resources := make([]*weirv1.Resource, len(items))
	for i, item := range items {
		resources[i] = item.Resource
	}
	return resources
}

func TestFormsOfAFile(t *testing.T) {
	for name, data := range map[string]string{
		"a document":      "kind: Service\nmetadata: {name: a}",
		"an object":       `{"kind": "Service", "metadata": {"name": "a"}}`,
		"tabs":            "{\n\t\"kind\": \"Service\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n",
		"an array":        `[{"kind": "Service", "metadata": {"name": "a"}}]`,
		"a List":          "kind: List\nitems:\n- {kind: Service, metadata: {name: a}}",
		"empty documents": "---\n---\nkind: Service\nmetadata: {name: a}\n---\n# end\n",
		"a byte order":    "\ufeffkind: Service\nmetadata: {name: a}\n",
		"windows lines":   "kind: Service\r\nmetadata:\r\n  name: a\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			resources := parse(t, "f", []byte(data))
			if len(resources) != 1 || resource.Of(resources[0]).Name != "a" {
				t.Errorf("got %v", resources)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for name, c := range map[string]struct{ data, want string }{
		"depth":   {"kind: Policy\nmetadata: {name: a}\nspec: {targetRefs: [{kind: Route, name: a}], plugin: p, config: {a: " + deep + "}}", "is nested more than 64 deep"},
		"cycle":   {"kind: Policy\nmetadata: {name: a}\nspec: {targetRefs: [{kind: Route, name: a}], plugin: p, config: {a: &a [*a]}}", ""},
		"merging": {"kind: Policy\nmetadata: {name: a}\nspec: &s {<<: *s}", ""},
		"size":    {strings.Repeat(" ", manifest.MaxBytes+1), "shop.yaml: is longer than 64 MiB, the most that a file may have: split it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := manifest.Parse("shop.yaml", []byte(c.data))
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1000 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUnique(t *testing.T) {
	a, err := manifest.Parse("a.yaml", []byte("kind: Service\nmetadata: {name: x}\n---\nkind: Service\nmetadata: {name: x, tenant: acme}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := manifest.Unique(a); err != nil {
		t.Error(err)
	}
	b, err := manifest.Parse("b.yaml", []byte("\nkind: Service\nmetadata:\n  name: x"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "b.yaml:4:9: metadata.name: Service x is declared twice; first at a.yaml:1"
	if err := manifest.Unique(append(a, b...)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// What a server refuses is told where it stands; what was left out, where its
// parent stands.
func TestProblemOfAnItem(t *testing.T) {
	items, err := manifest.Parse("f.yaml", []byte("kind: Route\nmetadata: {name: a}\nspec:\n  parentRefs: [{name: p}]\n  rules:\n  - backendRefs:\n    - name: b\n"))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"spec.rules[0].backendRefs[0].name":   "f.yaml:7:13: ",
		"spec.rules[0].backendRefs[0].subset": "f.yaml:7:7: ",
		"spec.rules[0].backendRefs[9]":        "f.yaml:6:5: ",
		"spec.rules":                          "f.yaml:5:3: ",
		"status":                              "f.yaml:1:1: ",
		"":                                    "f.yaml:1:1: ",
	} {
		if got := items[0].Problem(field, "m").Error(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", field, got, want)
		}
	}
}

func TestUnmarshalJSON(t *testing.T) {
	want := &weirv1.ApplyRequest{DryRun: true, Resources: []*weirv1.Resource{{Kind: &weirv1.Resource_Route{Route: &weirv1.Route{
		Metadata: &weirv1.Metadata{Name: "😀"},
		Spec: &weirv1.RouteSpec{Rules: []*weirv1.RouteRule{{Matches: []*weirv1.RouteMatch{
			{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: "/"}}}}}}}}}}}
	if got := new(weirv1.Resource); manifest.UnmarshalJSON([]byte(`{"kind": "Route"}`), got) != nil || got.GetRoute().GetKind() != "Route" {
		t.Errorf("got %v", got)
	}
	for name, body := range map[string]string{
		"as protojson":     `{"dryRun": true, "resources": [{"route": {"metadata": {"name": "😀"}, "spec": {"rules": [{"matches": [{"path": {"type": "PATH_PREFIX", "value": "/"}}]}]}}}]}`,
		"in other spells":  `{"dryRun": true, "resources": [{"route": {"metadata": {"name": "\ud83d\ude00"}, "spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]}}}]}`,
		"without envelope": `{"dryRun": true, "resources": [{"kind": "Route", "metadata": {"name": "😀"}, "spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "\/"}}]}]}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			got := new(weirv1.ApplyRequest)
			if err := manifest.UnmarshalJSON([]byte(body), got); err != nil {
				t.Fatal(err)
			}
			if name == "without envelope" {
				want := proto.CloneOf(want)
				want.Resources[0].GetRoute().Kind = "Route"
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
				return
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
	for body, want := range map[string]string{
		`{"resource": []}`: `resource: unknown field; did you mean "resources"?`,
		`{"resources": [{"route": {"spec": {"rules": [{"matches": [{"path": {"type": "Prefix"}}]}]}}}]}`: `resources[0].route.spec.rules[0].matches[0].path.type: unknown value "Prefix"; did you mean "PathPrefix"?`,
		`{"dryRun": `:                    "unexpected EOF",
		`[]`:                             "is a list; a mapping is expected",
		`{"resources": [{"kind": "X"}]}`: `resources[0].kind: unknown kind "X"`,
		`{"resources": [{"kind": "Route"` + strings.Repeat(" ", 1<<20) + `}]}`: `unknown field "kind" (the spellings of files are read in JSON of up to 1 MiB, not in this of 1.0)`,
		`{"resources": [{"route": {}, "policy": {}}]}`:                         "oneof",
	} {
		if err := manifest.UnmarshalJSON([]byte(body), new(weirv1.ApplyRequest)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", body, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/problems/*.txt", "testdata/golden/*"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := manifest.Parse("f", data)
		if err != nil {
			return
		}
		for _, item := range items {
			var b bytes.Buffer
			if err := manifest.WriteYAML(&b, item.Resource); err != nil {
				t.Fatal(err)
			}
			again, err := manifest.Parse("again", b.Bytes())
			if err != nil || len(again) != 1 {
				t.Fatalf("%s\n%v", b.Bytes(), err)
			}
			if !proto.Equal(item.Resource, again[0].Resource) {
				t.Fatalf("%s\n%v\n%v", b.Bytes(), item.Resource, again[0].Resource)
			}
		}
	})
}
