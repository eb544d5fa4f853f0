package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

var module = []byte("\x00asm\x01\x00\x00\x00 and more")

// image is a layout in the making.
type image struct{ fstest.MapFS }

func newImage() image {
	return image{fstest.MapFS{"oci-layout": {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}}
}

func (i image) blob(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	digits := hex.EncodeToString(sum[:])
	i.MapFS["blobs/sha256/"+digits] = &fstest.MapFile{Data: content}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digits, Size: int64(len(content))}
}

func (i image) json(mediaType string, v any) descriptor {
	text, _ := json.Marshal(v)
	return i.blob(mediaType, text)
}

func (i image) of(layers ...descriptor) descriptor {
	return i.json(typeManifest, manifest{SchemaVersion: 2, Layers: layers})
}

func (i image) root(images ...descriptor) image {
	text, _ := json.Marshal(index{SchemaVersion: 2, Manifests: images})
	i.MapFS["index.json"] = &fstest.MapFile{Data: text}
	return i
}

func named(d descriptor, name string) descriptor {
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	return d
}

func tarOf(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		_ = w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg})
		_, _ = w.Write([]byte(files[i+1]))
	}
	_ = w.Close()
	return b.Bytes()
}

func gzipped(content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(content)
	_ = w.Close()
	return b.Bytes()
}

func zstded(content []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(content, nil)
}

func TestModule(t *testing.T) {
	const gz, zst, plain = "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.image.layer.v1.tar"
	const docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	m := string(module)
	for what, make := range map[string]func(i image){
		"an artifact":                    func(i image) { i.root(i.of(i.blob(typeModule, module))) },
		"an artifact of the other type":  func(i image) { i.root(i.of(i.blob(typeContent, module))) },
		"an artifact of the newest type": func(i image) { i.root(i.of(i.blob(typeWasm, module))) },
		"a schema beside it":             func(i image) { i.root(i.of(i.blob("application/json", []byte("{}")), i.blob(typeModule, module))) },
		"a plain image":                  func(i image) { i.root(i.of(i.blob(gz, gzipped(tarOf("plugin.wasm", m))))) },
		"a plain image of Docker's":      func(i image) { i.root(i.of(i.blob(docker, gzipped(tarOf("etc/x", "y", "./plugin.wasm", m))))) },
		"a layer that is not packed":     func(i image) { i.root(i.of(i.blob(plain, tarOf("plugin.wasm", m)))) },
		"a layer packed with zstd":       func(i image) { i.root(i.of(i.blob(zst, zstded(tarOf("plugin.wasm", m))))) },
		"the last layer wins": func(i image) {
			i.root(i.of(i.blob(plain, tarOf("plugin.wasm", "old")), i.blob(plain, tarOf("plugin.wasm", m))))
		},
		"a layer without it is no matter": func(i image) {
			i.root(i.of(i.blob(plain, tarOf("plugin.wasm", m)), i.blob(plain, tarOf("x/plugin.wasm", "no"))))
		},
		"an index in the index": func(i image) {
			i.root(i.json(typeIndex, index{Manifests: []descriptor{i.of(i.blob(typeModule, module))}}))
		},
	} {
		t.Run(what, func(t *testing.T) {
			i := newImage()
			make(i)
			got, err := Module(i, "")
			if err != nil || !bytes.Equal(got, module) {
				t.Errorf("got %q, %v", got, err)
			}
			var files []string
			for name, f := range i.MapFS {
				files = append(files, "./"+name, string(f.Data))
			}
			if got, err = Module(Tar(bytes.NewReader(tarOf(files...))), ""); err != nil || !bytes.Equal(got, module) {
				t.Errorf("in a tar file: got %q, %v", got, err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	i := newImage()
	i.root(named(i.of(i.blob(typeModule, module)), "v1"), named(i.of(i.blob(typeModule, []byte("other"))), "v2"))
	if got, err := Module(i, "v1"); err != nil || !bytes.Equal(got, module) {
		t.Errorf("got %q, %v", got, err)
	}
	for name, want := range map[string]string{"": "there are 2 images in it; name one: v1, v2", "v3": `no image named "v3" in it; there are v1, v2`} {
		if _, err := Module(i, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	const plain = "application/vnd.oci.image.layer.v1.tar+gzip"
	for _, c := range []struct {
		what, want string
		make       func(i image)
	}{
		{"no layout", "no OCI image layout", func(i image) { delete(i.MapFS, "oci-layout") }},
		{"a layout to come", `oci-layout says "2.0.0"`, func(i image) { i.MapFS["oci-layout"].Data = []byte(`{"imageLayoutVersion":"2.0.0"}`) }},
		{"no index", "index.json", func(i image) {}},
		{"no JSON", "read index.json", func(i image) { i.MapFS["index.json"] = &fstest.MapFile{Data: []byte("{")} }},
		{"no image", "there is no image in it", func(i image) { i.root() }},
		{"not an image", "not an image", func(i image) { i.root(i.blob("text/plain", nil)) }},
		{"no module", "it holds no module", func(i image) { i.root(i.of(i.blob("text/plain", nil), i.blob(plain, gzipped(tarOf("x", "y"))))) }},
		{"two modules", "it has 2 modules", func(i image) { i.root(i.of(i.blob(typeModule, module), i.blob(typeWasm, module))) }},
		{"a manifest is not there", "file does not exist", func(i image) {
			d := i.of(i.blob(typeModule, module))
			delete(i.MapFS, "blobs/sha256/"+d.Digest[7:])
			i.root(d)
		}},
		{"a manifest was changed", "is damaged", func(i image) {
			d := i.of(i.blob(typeModule, module))
			i.MapFS["blobs/sha256/"+d.Digest[7:]].Data[20] ^= 1
			i.root(d)
		}},
		{"a module was changed", "is damaged", func(i image) {
			d := i.blob(typeModule, bytes.Clone(module))
			i.MapFS["blobs/sha256/"+d.Digest[7:]].Data[9] ^= 1
			i.root(i.of(d))
		}},
		{"a layer was changed", "is damaged", func(i image) {
			d := i.blob(plain, gzipped(tarOf("plugin.wasm", string(module))))
			i.MapFS["blobs/sha256/"+d.Digest[7:]].Data[9] ^= 1
			i.root(i.of(d))
		}},
		{"a size is too small", "longer than", func(i image) {
			d := i.blob(typeModule, module)
			d.Size--
			i.root(i.of(d))
		}},
		{"a size is too big", "is damaged", func(i image) {
			d := i.blob(typeModule, module)
			d.Size++
			i.root(i.of(d))
		}},
		{"more than a module may have", "at most 67108864", func(i image) {
			d := i.blob(typeModule, module)
			d.Size = MaxModule + 1
			i.root(i.of(d))
		}},
		{"a way out of the directory", "no digest", func(i image) {
			d := i.blob(typeModule, module)
			d.Digest = "sha256:../../../../etc/passwd"
			i.root(i.of(d))
		}},
		{"another digest", "no digest by SHA-256", func(i image) {
			d := i.blob(typeModule, module)
			d.Digest = "sha512:00"
			i.root(i.of(d))
		}},
		{"a layer that is no tar", "read layer", func(i image) { i.root(i.of(i.blob(plain, []byte("no tar, and too short")))) }},
		{"a layer that unpacks without end", "unpacks to more than", func(i image) {
			i.root(i.of(i.blob(plain, gzipped(append(tarOf("x", strings.Repeat("\x00", maxLayer))[:maxLayer], tarOf("plugin.wasm", "x")...)))))
		}},
		{"indexes without end", "nested more than 4 deep", func(i image) {
			d := i.of(i.blob(typeModule, module))
			for range maxDepth + 1 {
				d = i.json(typeIndex, index{Manifests: []descriptor{d}})
			}
			i.root(d)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			i := newImage()
			c.make(i)
			if got, err := Module(i, ""); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	if err := Write(dir, "v1", module); err != nil {
		t.Fatal(err)
	}
	if got, err := Module(os.DirFS(dir), "v1"); err != nil || !bytes.Equal(got, module) {
		t.Errorf("got %q, %v", got, err)
	}
	if err := Write(dir, "v1", module); err == nil {
		t.Error("it writes over what is there")
	}
}

// What skopeo copies from one form to the other is read in both.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("there is no skopeo")
	}
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "layout"), "v1", module); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("skopeo", "copy", "oci:layout:v1", "oci-archive:image.tar:v2")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(filepath.Join(dir, "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := Module(Tar(f), "v2"); err != nil || !bytes.Equal(got, module) {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzDocuments: an index and a manifest may say anything.
func FuzzDocuments(f *testing.F) {
	i := newImage()
	i.root(i.of(i.blob(typeModule, module)))
	f.Add(i.MapFS["index.json"].Data, []byte(`{"layers":[]}`))
	f.Add([]byte(`{"manifests":[{}]}`), []byte(`[`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		i := newImage()
		i.MapFS["index.json"] = &fstest.MapFile{Data: first}
		i.blob(typeModule, module)
		_, _ = Module(i, "")
		d := i.blob(typeManifest, second)
		if got, err := Module(i.root(d), ""); err == nil && !bytes.Equal(got, module) {
			t.Errorf("got %q", got)
		}
	})
}

// FuzzLayer: a layer, and a tar file, may hold anything.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf("plugin.wasm", string(module)))
	f.Add(gzipped(tarOf("x", "y", "plugin.wasm", string(module))))
	f.Add(zstded(tarOf("plugin.wasm", string(module))))
	f.Fuzz(func(t *testing.T, content []byte) {
		i := newImage()
		d := i.blob("application/vnd.oci.image.layer.v1.tar+gzip", content)
		if got, err := Module(i.root(i.of(d)), ""); err == nil && len(got) > MaxModule {
			t.Errorf("%d bytes", len(got))
		}
		if _, err := fs.ReadFile(Tar(bytes.NewReader(content)), "oci-layout"); err == nil {
			_, _ = Module(Tar(bytes.NewReader(content)), "")
		}
	})
}
