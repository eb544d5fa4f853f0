package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// load reads the resources of files, of all manifests below directories, and
// of standard input ("-"). What is wrong in any of them is told at once.
func (c *client) load(paths []string, stdin io.Reader) ([]manifest.Item, error) {
	if c.tenant == "*" {
		return nil, usagef("--tenant \"*\" only reads; name the tenant to write for")
	}
	var items []manifest.Item
	var problems manifest.Problems
	for _, path := range paths {
		files, err := manifests(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			found, err := loadFile(file, stdin, file != path)
			var bad manifest.Problems
			if err != nil && !errors.As(err, &bad) {
				return nil, err
			}
			problems = append(problems, bad...)
			items = append(items, found...)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("read %s: there is no resource in it", strings.Join(paths, ", "))
	}
	if err := takeDocuments(items); err != nil {
		return nil, err
	}
	for _, item := range items {
		if meta := resource.Meta(item.Resource); meta.GetTenant() == "" {
			meta.Tenant = c.tenant
		}
		resource.Normalize(item.Resource)
	}
	return items, manifest.Unique(items)
}

// loadFor reads the files of a command, with the modules that they bring along,
// and connects it.
func (c *client) loadFor(cmd *cobra.Command, files []string) ([]manifest.Item, []module, *session, error) {
	if len(files) == 0 {
		return nil, nil, nil, usagef("name what to read with -f: a file, a directory, or - for standard input")
	}
	items, err := c.load(files, cmd.InOrStdin())
	if err != nil {
		return nil, nil, nil, err
	}
	modules, err := takeModules(items)
	if err != nil {
		return nil, nil, nil, err
	}
	api, err := c.connect(cmd.ErrOrStderr())
	return items, modules, api, err
}

// loadFile reads one file. Of those that were found below a directory, OpenAPI documents
// are left out: they are there for Contracts, which name them.
func loadFile(file string, stdin io.Reader, found bool) ([]manifest.Item, error) {
	name, source := file, stdin
	if file == "-" {
		name = "<stdin>"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		defer f.Close()
		source = f
	}
	data, err := io.ReadAll(io.LimitReader(source, manifest.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if found && manifest.IsOpenAPI(data) {
		return nil, nil
	}
	return manifest.Parse(name, data)
}

// manifests lists the files that a path stands for, in a fixed order. Hidden
// ones below a directory are left out.
func manifests(path string) ([]string, error) {
	info, err := os.Stat(path)
	if path == "-" || err == nil && !info.IsDir() {
		return []string{path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && file != path
		switch {
		case d.IsDir() && hidden:
			return filepath.SkipDir
		case !d.IsDir() && !hidden && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)):
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("read manifests: there is no .yaml, .yml or .json file below %s", path)
	}
	return files, nil
}

func resourcesOf(items []manifest.Item) []*weirv1.Resource {
	out := make([]*weirv1.Resource, len(items))
	for i, item := range items {
		out[i] = proto.CloneOf(item.Resource)
	}
	return out
}
