package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// Modules travel apart from the Plugins that point at them. A file may hold one
// in its Plugin, as base64 in spec.module, or beside itself, as
// modules/DIGITS.wasm, where the digits are those of the digest.

// modulesDir is the directory beside a manifest that holds modules.
const modulesDir = "modules"

func moduleFile(digest string) string {
	return strings.TrimPrefix(digest, "sha256:") + ".wasm"
}

// module is one that a file brings along; content is nil when it is in path.
type module struct {
	plugin  *weirv1.Plugin
	content []byte
	path    string
}

// takeModules takes the modules out of plugins, which keep the digests.
func takeModules(items []manifest.Item) ([]module, error) {
	var modules []module
	var problems manifest.Problems
	for _, item := range items {
		plugin := item.Resource.GetPlugin()
		if plugin == nil {
			continue
		}
		spec := plugin.GetSpec()
		if content := spec.GetModule(); len(content) > 0 {
			digest := digestOf(content)
			if spec.GetDigest() != "" && spec.GetDigest() != digest {
				problems = append(problems, item.Problem("spec.digest", "is not that of spec.module, which is "+digest))
			}
			spec.Digest, spec.Module = digest, nil
			modules = append(modules, module{plugin: plugin, content: content})
			continue
		}
		path := filepath.Join(filepath.Dir(item.File), modulesDir, moduleFile(spec.GetDigest()))
		if _, err := os.Stat(path); err == nil {
			modules = append(modules, module{plugin: plugin, path: path})
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read module: %w", err)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return modules, nil
}

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// pushModules stores the modules that are not known to be stored.
func pushModules(ctx context.Context, api *session, modules []module) error {
	for _, m := range modules {
		ref, digest := resource.Of(resource.Wrap(m.plugin)), m.plugin.GetSpec().GetDigest()
		// An error means that it is not known; the push will tell more.
		stored, err := api.Get(ctx, &weirv1.GetRequest{Ref: ref.Proto()})
		if err == nil && stored.GetResource().GetPlugin().GetSpec().GetDigest() == digest {
			continue
		}
		content := m.content
		if content == nil {
			if content, err = readModule(m.path); err != nil {
				return err
			}
			if got := digestOf(content); got != digest {
				return fmt.Errorf("read module: %s is damaged: its digest is %s", m.path, got)
			}
		}
		if _, err := api.PushModule(ctx, &weirv1.PushModuleRequest{Module: content, Limits: m.plugin.GetSpec().GetLimits()}); err != nil {
			return fmt.Errorf("push the module of %s: %w", shortName(ref), err)
		}
	}
	return nil
}
