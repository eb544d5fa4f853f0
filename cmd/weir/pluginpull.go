package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/internal/oci"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// readImage reads a module out of an OCI layout, a directory or a tar file, whose
// image may be named behind a colon. is: it is one.
func readImage(name string) (module []byte, is bool, err error) {
	path, image := name, ""
	if _, err := os.Stat(path); err != nil {
		i := strings.LastIndexByte(name, ':')
		if i < 0 {
			return nil, false, nil
		}
		path, image = name[:i], name[i+1:]
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, false, nil
	case info.IsDir():
		module, err = readImageDir(path, image)
	case info.Mode().IsRegular():
		if is, module, err = readImageTar(path, image); !is {
			return nil, image != "", err
		}
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("read module: %s: %w", name, err)
	}
	return module, true, nil
}

// readImageDir follows no link that leads out of the directory.
func readImageDir(dir, image string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return oci.Module(root.FS(), image)
}

func readImageTar(file, image string) (is bool, module []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, nil, fmt.Errorf("read module: %w", err)
	}
	defer f.Close()
	const magicAt = 257
	head := make([]byte, magicAt+5)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.HasSuffix(head, []byte("ustar")) {
		if image != "" {
			return false, nil, fmt.Errorf("read module: %s is no tar file with images in it", file)
		}
		return false, nil, nil
	}
	module, err = oci.Module(oci.Tar(f), image)
	return true, module, err
}

func newPluginPullCommand(c *client) *cobra.Command {
	var digest string
	var layout bool
	cmd := &cobra.Command{
		Use:   "pull NAME FILE",
		Short: "Fetch a plugin's module from the servers",
		Long: `Pull writes the module that is in force to a file, or with --oci into a
directory, as an OCI image layout that registries' tools take (skopeo copy
oci:DIR docker://…). --digest names another version (weir plugin history).`,
		Example: "  weir plugin pull stamp stamp.wasm\n  weir plugin pull stamp image --oci",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if digest == "" {
				plugin, err := c.getPlugin(cmd, api, args[0])
				if err != nil {
					return err
				}
				digest = plugin.GetSpec().GetDigest()
			}
			answer, err := api.GetModule(cmd.Context(), &weirv1.GetModuleRequest{Digest: digest})
			if err != nil {
				return err
			}
			if got := digestOf(answer.GetModule()); got != digest {
				return fmt.Errorf("pull module: it has the digest %s, not %s", got, digest)
			}
			if layout {
				err = oci.Write(filepath.Clean(args[1]), args[0], answer.GetModule())
			} else {
				err = os.WriteFile(args[1], answer.GetModule(), 0o644)
			}
			if err != nil {
				return fmt.Errorf("pull module: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[1], digest)
			return err
		},
	}
	cmd.Flags().StringVar(&digest, "digest", "", "whole digest of another version")
	cmd.Flags().BoolVar(&layout, "oci", false, "write an OCI image layout into the directory FILE")
	return cmd
}
