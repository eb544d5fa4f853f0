package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func newExportCommand(c *client) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "export [DIR]",
		Short: "Write all that is declared, modules included, to be applied elsewhere",
		Long: `Write all that is declared, as people write it: without revisions, times and
status. Applied to an empty cluster, it declares the same there.

Without DIR it is one YAML file on standard output, with modules as base64 in
their Plugins. With DIR it is a file for each kind, and modules/DIGITS.wasm for
each module; a DIR that is not empty is kept, unless with --force, which
replaces the files of those names. It holds all tenants, unless --tenant names
one. It holds no tokens, keys and certificates: those are in a backup.`,
		Example: "  weir export > all.yaml\n  weir export declarations/ && weir apply -f declarations/ --admin other:7401",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			all, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Tenant: cmp.Or(c.tenant, "*")})
			if err != nil {
				return err
			}
			// Instances are what runs here, not what was declared.
			all = slices.DeleteFunc(all, func(r *weirv1.Resource) bool { return r.GetInstance() != nil })
			for i, r := range all {
				all[i] = declared(r)
				if plugin := all[i].GetPlugin(); plugin != nil {
					plugin.GetSpec().Canary = nil // it is a trial, and its module stays here
				}
			}
			if len(args) == 0 {
				return exportFile(cmd.Context(), api, cmd.OutOrStdout(), all)
			}
			return exportDir(cmd.Context(), api, args[0], all, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "write into a directory that is not empty")
	return cmd
}

// exportFile writes what apply takes as one file, or says that it does not.
func exportFile(ctx context.Context, api *session, w io.Writer, all []*weirv1.Resource) error {
	for _, r := range all {
		if plugin := r.GetPlugin(); plugin != nil {
			m, err := api.GetModule(ctx, &weirv1.GetModuleRequest{Digest: plugin.GetSpec().GetDigest()})
			if err != nil {
				return err
			}
			plugin.Spec.Module = m.GetModule()
		}
	}
	var b bytes.Buffer
	if err := manifest.WriteYAML(&b, all...); err != nil {
		return err
	}
	if b.Len() > manifest.MaxBytes {
		return fmt.Errorf("export: it has %s, more than the %s that apply reads of a file; export to a directory: weir export DIR",
			byteText(uint64(b.Len())), byteText(manifest.MaxBytes))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// exportDir writes a file for each kind, and one for each module.
func exportDir(ctx context.Context, api *session, dir string, all []*weirv1.Resource, force bool) error {
	if err := makeRoom(dir, force); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	byKind := map[string][]*weirv1.Resource{}
	for _, r := range all {
		byKind[resource.KindOf(r)] = append(byKind[resource.KindOf(r)], r)
		if digest := r.GetPlugin().GetSpec().GetDigest(); digest != "" {
			if err := exportModule(ctx, api, filepath.Join(dir, modulesDir), digest); err != nil {
				return err
			}
		}
	}
	for kind, resources := range byKind {
		var b bytes.Buffer
		if err := manifest.WriteYAML(&b, resources...); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, resource.Plural(kind)+".yaml"), b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

func exportModule(ctx context.Context, api *session, dir, digest string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	m, err := api.GetModule(ctx, &weirv1.GetModuleRequest{Digest: digest})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, moduleFile(digest)), m.GetModule(), 0o644); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

var moduleName = regexp.MustCompile(`^[0-9a-f]{64}\.wasm$`)

// makeRoom makes the directory, and takes away what an export before left in
// it, since what is deleted meanwhile must not come back. Other files stay.
func makeRoom(dir string, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return err
	}
	if !force {
		return fmt.Errorf("%s is not empty; choose another, or replace what an export left there with --force", dir)
	}
	for _, kind := range resource.Kinds() {
		if err := os.Remove(filepath.Join(dir, resource.Plural(kind)+".yaml")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	modules, err := os.ReadDir(filepath.Join(dir, modulesDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, m := range modules {
		if moduleName.MatchString(m.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, modulesDir, m.Name())))
		}
	}
	return err
}
