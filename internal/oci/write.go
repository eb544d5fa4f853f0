package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Write makes a layout of one artifact in a directory that is empty, or is not there.
func Write(dir, name string, module []byte) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(mediaType string, content []byte) (descriptor, error) {
		sum := sha256.Sum256(content)
		digits := hex.EncodeToString(sum[:])
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digits, Size: int64(len(content))},
			os.WriteFile(filepath.Join(blobs, digits), content, 0o644)
	}
	config, err := put(typeConfig, []byte("{}"))
	if err != nil {
		return err
	}
	layer, err := put(typeModule, module)
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{"org.opencontainers.image.title": PluginFile}
	text, err := json.Marshal(manifest{SchemaVersion: 2, MediaType: typeManifest, Config: config, Layers: []descriptor{layer}})
	if err != nil {
		return err
	}
	image, err := put(typeManifest, text)
	if err != nil {
		return err
	}
	image.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	if text, err = json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{image}}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}
