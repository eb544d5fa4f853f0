package manifest

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// IsOpenAPI reports whether a file is an OpenAPI document, which says so itself, and no
// manifest.
func IsOpenAPI(data []byte) bool {
	if len(data) > MaxBytes || !bytes.Contains(data, []byte("openapi")) {
		return false
	}
	var head struct {
		OpenAPI string `yaml:"openapi"`
		Kind    string `yaml:"kind"`
	}
	return yaml.NewDecoder(bytes.NewReader(data)).Decode(&head) == nil && head.OpenAPI != "" && head.Kind == ""
}
