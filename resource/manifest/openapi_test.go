package manifest_test

import (
	"testing"

	"github.com/weirmesh/weir/resource/manifest"
)

func TestIsOpenAPI(t *testing.T) {
	for text, want := range map[string]bool{
		"openapi: 3.1.0\ninfo: {title: t}":   true,
		`{"openapi": "3.0.3", "paths": {}}`:  true,
		"kind: Contract\nspec: {openapi: x}": false,
		"kind: Contract\nopenapi: 3.1.0":     false,
		"kind: Route # openapi":              false,
		"- openapi":                          false,
		"openapi: [":                         false,
		"":                                   false,
	} {
		if got := manifest.IsOpenAPI([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
