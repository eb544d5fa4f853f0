package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// pluginFiles looks at the files that a plugin is made of: of a directory what the go
// command may read, at any depth.
type pluginFiles struct{ source, config string }

// look returns a number that is another one when a file was changed, added or
// removed. What cannot be read counts as not there.
func (w *pluginFiles) look() uint64 {
	sum := fnv.New64a()
	note := func(file string, info fs.FileInfo) {
		fmt.Fprintln(sum, file, info.Size(), info.ModTime().UnixNano())
	}
	_ = filepath.WalkDir(w.source, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.IsDir():
			if name := d.Name(); file != w.source && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		case file != w.source && (strings.HasSuffix(file, ".wasm") || strings.HasPrefix(d.Name(), ".")):
			return nil
		}
		if info, err := d.Info(); err == nil {
			note(file, info)
		}
		return nil
	})
	if w.config != "" {
		if info, err := os.Stat(w.config); err == nil {
			note(w.config, info)
		}
	}
	return sum.Sum64()
}

// await returns when there is something new since seen, and nothing more comes:
// editors and compilers write in several steps.
func (w *pluginFiles) await(ctx context.Context, seen uint64) (uint64, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := seen
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
		now := w.look()
		if now != seen && now == last {
			return now, nil
		}
		last = now
	}
}

// maxPolicyConfig is more than a resource may have.
const maxPolicyConfig = 1 << 20

// readPolicyConfig reads a policy's config from a file, YAML or JSON; "" is none.
func readPolicyConfig(file string) (*structpb.Struct, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxPolicyConfig {
		err = fmt.Errorf("%s is longer than %d KiB", file, maxPolicyConfig>>10)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("read config: %s: %w", file, err)
	}
	s, err := structpb.NewStruct(config)
	if err != nil {
		return nil, fmt.Errorf("read config: %s: %w", file, err)
	}
	return s, nil
}
