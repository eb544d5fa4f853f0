package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// PluginFile is what a plain image calls its module.
const PluginFile = "plugin.wasm"

func isTar(mediaType string) bool {
	for _, suffix := range []string{".tar", "+gzip", "+zstd", ".tar.gzip", ".tar.zstd"} {
		if strings.HasSuffix(mediaType, suffix) {
			return true
		}
	}
	return false
}

// fromLayer is the file plugin.wasm of a layer, nil if it has none.
func fromLayer(layout fs.FS, d descriptor) ([]byte, error) {
	packed, err := readBlob(layout, d, maxLayer)
	if err != nil {
		return nil, err
	}
	unpacked, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", d.Digest, err)
	}
	defer unpacked.Close()
	bounded := &io.LimitedReader{R: unpacked, N: maxLayer}
	archive := tar.NewReader(bounded)
	for range maxEntries {
		entry, err := archive.Next()
		switch {
		case err == io.EOF && bounded.N > 0:
			return nil, nil
		case err != nil && bounded.N <= 0:
			return nil, fmt.Errorf("read layer %s: it unpacks to more than %d bytes", d.Digest, maxLayer)
		case err != nil:
			return nil, fmt.Errorf("read layer %s: %w", d.Digest, err)
		}
		if path.Clean("/"+entry.Name) != "/"+PluginFile || entry.Typeflag != tar.TypeReg {
			continue
		}
		if entry.Size > MaxModule {
			return nil, fmt.Errorf("%s has %d bytes; a module has at most %d", PluginFile, entry.Size, MaxModule)
		}
		module, err := io.ReadAll(archive)
		if err != nil {
			return nil, fmt.Errorf("read %s of layer %s: %w", PluginFile, d.Digest, err)
		}
		return module, nil
	}
	return nil, fmt.Errorf("read layer %s: it has more than %d files", d.Digest, maxEntries)
}

// unpack reads a layer by what it begins with: media types are not always right.
func unpack(packed []byte) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(packed, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(packed))
	case bytes.HasPrefix(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxLayer))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(bytes.NewReader(packed)), nil
}

// Tar is the layout in a tar file, which is gone through for each file that is asked
// for: there are few.
func Tar(file io.ReadSeeker) fs.FS { return tarFS{file} }

type tarFS struct{ file io.ReadSeeker }

// Open implements fs.FS. What it returns is good until the next call.
func (t tarFS) Open(name string) (fs.File, error) {
	fail := func(err error) (fs.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	archive := tar.NewReader(t.file)
	for range maxEntries {
		entry, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return fail(fs.ErrNotExist)
		case err != nil:
			return fail(err)
		case entry.Typeflag == tar.TypeReg && path.Clean("/"+entry.Name) == "/"+name:
			return tarFile{archive, entry}, nil
		}
	}
	return fail(fmt.Errorf("it has more than %d files", maxEntries))
}

type tarFile struct {
	*tar.Reader
	header *tar.Header
}

func (f tarFile) Stat() (fs.FileInfo, error) { return f.header.FileInfo(), nil }
func (f tarFile) Close() error               { return nil }
