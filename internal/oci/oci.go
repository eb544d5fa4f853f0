// Package oci takes a WASM module out of an OCI image layout, a directory or a tar
// file, as crane, skopeo, oras and buildah write them, and makes one.
//
//	oci-layout, index.json ─▶ [index ─▶]… manifest ─▶ layer ─▶ module
//
// Two kinds of image hold a module: artifacts, whose one layer it is, by its media
// type; and plain images, which have a file plugin.wasm in a layer. Envoy and Istio
// take both.
//
// Whatever is read by a digest is held against it, and against the size that goes with
// it, before anything is made of it. All sizes are bounded, also what a layer unpacks
// to.
package oci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// Media types.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	dockerList   = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerOne    = "application/vnd.docker.distribution.manifest.v2+json"

	typeModule  = "application/vnd.module.wasm.content.layer.v1+wasm"
	typeContent = "application/vnd.wasm.content.layer.v1+wasm"
	typeWasm    = "application/wasm"
	typeConfig  = "application/vnd.module.wasm.config.v1+json"
)

// Bounds.
const (
	// MaxModule is the most that a module may have.
	MaxModule   = 64 << 20
	maxDocument = 4 << 20
	maxLayer    = 256 << 20 // packed, and unpacked
	maxDepth    = 4         // of indexes in indexes
	maxEntries  = 100_000   // of a tar file
)

// ErrNoLayout is for what is no layout at all.
var ErrNoLayout = errors.New("it is no OCI image layout")

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// name is what the image is called in an index.
func (d descriptor) name() string { return d.Annotations["org.opencontainers.image.ref.name"] }

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []descriptor `json:"manifests"`
}

type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Module returns the module of the image of that name; "" is the only one there is.
func Module(layout fs.FS, name string) ([]byte, error) {
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	text, err := readFile(layout, "oci-layout", maxDocument)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLayout, err)
	}
	if err := json.Unmarshal(text, &version); err != nil || !strings.HasPrefix(version.Version, "1.") {
		return nil, fmt.Errorf("%w of version 1: oci-layout says %q", ErrNoLayout, version.Version)
	}
	text, err = readFile(layout, "index.json", maxDocument)
	if err != nil {
		return nil, err
	}
	var root index
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	d, err := choose(root, name)
	for depth := 0; err == nil && (d.MediaType == typeIndex || d.MediaType == dockerList); depth++ {
		if depth == maxDepth {
			return nil, fmt.Errorf("indexes are nested more than %d deep", maxDepth)
		}
		var inner index
		if err = readJSON(layout, d, &inner); err == nil {
			d, err = choose(inner, "")
		}
	}
	if err != nil {
		return nil, err
	}
	if d.MediaType != typeManifest && d.MediaType != dockerOne {
		return nil, fmt.Errorf("%s is a %q, not an image", d.Digest, d.MediaType)
	}
	var m manifest
	if err := readJSON(layout, d, &m); err != nil {
		return nil, err
	}
	return m.module(layout)
}

func choose(i index, name string) (descriptor, error) {
	var found []descriptor
	var names []string
	for _, d := range i.Manifests {
		if name == "" || d.name() == name {
			found = append(found, d)
		}
		if d.name() != "" {
			names = append(names, d.name())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(i.Manifests) == 0:
		return descriptor{}, errors.New("there is no image in it")
	case len(found) == 0:
		return descriptor{}, fmt.Errorf("there is no image named %q in it; there are %s", name, strings.Join(names, ", "))
	}
	return descriptor{}, fmt.Errorf("there are %d images in it; name one: %s", len(found), strings.Join(names, ", "))
}

// module is the layer that is one, or what a layer has.
func (m manifest) module(layout fs.FS) ([]byte, error) {
	var found []descriptor
	var types []string
	for _, l := range m.Layers {
		if l.MediaType == typeModule || l.MediaType == typeContent || l.MediaType == typeWasm {
			found = append(found, l)
		}
		types = append(types, l.MediaType)
	}
	switch {
	case len(found) == 1:
		return readBlob(layout, found[0], MaxModule)
	case len(found) > 1:
		return nil, fmt.Errorf("it has %d modules", len(found))
	}
	for i := len(m.Layers) - 1; i >= 0; i-- { // the last one wins, as in a container
		if !isTar(m.Layers[i].MediaType) {
			continue
		}
		module, err := fromLayer(layout, m.Layers[i])
		if module != nil || err != nil {
			return module, err
		}
	}
	return nil, fmt.Errorf("it holds no module: neither a layer of type %s, nor a file plugin.wasm; its layers are %s", typeModule, strings.Join(types, ", "))
}

// readFile reads a file of bounded size.
func readFile(layout fs.FS, name string, most int64) ([]byte, error) {
	f, err := layout.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("read %s: it is longer than %d bytes", name, most)
	}
	return content, err
}

// readBlob reads what a descriptor describes, and nothing else.
func readBlob(layout fs.FS, d descriptor, most int64) ([]byte, error) {
	digits, ok := strings.CutPrefix(d.Digest, "sha256:")
	if !ok || len(digits) != 2*sha256.Size || strings.Trim(digits, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%q is no digest by SHA-256", d.Digest)
	}
	if d.Size < 0 || d.Size > most {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", d.Digest, d.Size, most)
	}
	content, err := readFile(layout, "blobs/sha256/"+digits, d.Size)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); int64(len(content)) != d.Size || hex.EncodeToString(sum[:]) != digits {
		return nil, fmt.Errorf("%s is damaged: it has %d bytes with the digest sha256:%x", d.Digest, len(content), sum)
	}
	return content, nil
}

func readJSON(layout fs.FS, d descriptor, into any) error {
	text, err := readBlob(layout, d, maxDocument)
	if err != nil {
		return err
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(into); err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return nil
}
