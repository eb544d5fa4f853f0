package manifest_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func TestGatewayAPI(t *testing.T) {
	const file = "testdata/gatewayapi/documents.txt"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	items, err := manifest.Parse("documents.yaml", archive.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	var all []*weirv1.Resource
	for _, item := range items {
		resource.Normalize(item.Resource)
		for _, v := range resource.Validate(item.Resource) {
			t.Error(v)
		}
		all = append(all, item.Resource)
	}
	if err := manifest.WriteYAML(&got, all...); err != nil {
		t.Fatal(err)
	}
	if *update {
		archive.Files[1].Data = got.Bytes()
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(archive.Files[1].Data), got.String()); diff != "" {
		t.Error(diff)
	}
}

// A few lines that repeat each other by aliases are not rewritten for ever.
func TestGatewayAPIAliasesAreBounded(t *testing.T) {
	text := "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n  x-filter: &f {type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}\n" +
		"  x-rule: &r {filters: [" + strings.Repeat("*f, ", 2000) + "*f]}\n" +
		"  rules: [" + strings.Repeat("*r, ", 2000) + "*r]\n"
	began := time.Now()
	_, err := manifest.Parse("a.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "the aliases of this file repeat too much") {
		t.Errorf("got %.300v after %s", err, time.Since(began))
	}
}

// Whatever stands in a document, reading it ends, and what is read is sound.
func FuzzGatewayAPI(f *testing.F) {
	for _, file := range []string{"testdata/gatewayapi/documents.txt", "testdata/problems/gatewayapi.txt"} {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for document := range strings.SplitSeq(string(archive.Files[0].Data), "---\n") {
			f.Add(document)
		}
	}
	f.Add("apiVersion: gateway.networking.k8s.io/v1\nkind: &a HTTPRoute\nmetadata: *a\nspec: [*a]\n")
	f.Fuzz(func(t *testing.T, text string) {
		items, err := manifest.Parse("a.yaml", []byte(text))
		if err != nil {
			return
		}
		for _, item := range items {
			resource.Normalize(item.Resource)
			for _, v := range resource.Validate(item.Resource) {
				t.Errorf("%s in\n%s", v, text)
			}
		}
	})
}
