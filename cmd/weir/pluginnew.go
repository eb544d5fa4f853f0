package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/policy/scaffold"
)

func newPluginNewCommand() *cobra.Command {
	var dir, sdk string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a plugin: a directory that compiles at once",
		Long: `New writes a plugin in Go with a configuration, a handler, tests of both kinds and
a Makefile. The SDK is written beside it, as this program has it, so that the
plugin builds without a network; --sdk points at one that is elsewhere.`,
		Example: "  weir plugin new stamp\n  weir plugin new stamp --dir plugins/stamp --sdk ../weir/plugins-sdk",
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "directory to make, or an empty one (NAME)")
	cmd.Flags().StringVar(&sdk, "sdk", "", "directory that holds plugins-sdk (a copy is written)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if dir == "" {
			dir = args[0]
		}
		files, err := scaffold.New(scaffold.Options{Name: args[0], Dir: dir, SDK: sdk})
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case output.forPrograms():
			return writeValue(out, *output, map[string]any{"name": args[0], "dir": dir, "files": files})
		case *output == formatName:
			_, err = fmt.Fprintln(out, dir)
			return err
		}
		for _, file := range files {
			fmt.Fprintln(out, file)
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "next: weir plugin build %s && weir plugin test %s/%s.wasm %s/cases.yaml\n", dir, dir, args[0], dir)
		return err
	}
	return cmd
}

func newPluginBuildCommand() *cobra.Command {
	var b scaffold.Build
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a plugin in Go",
		Long: `Build has the go command build the plugin in a directory, by default the current
one, as a module that proxies run. With --debug the functions keep their names,
which traps then tell; the module is a few per cent larger.`,
		Example: "  weir plugin build\n  weir plugin build stamp --debug --file stamp.wasm",
		Args:    cobra.MaximumNArgs(1),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&b.Output, "file", "", "file to write (DIR/NAME.wasm)")
	cmd.Flags().BoolVar(&b.Debug, "debug", false, "keep the names of functions")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b.Dir = "."
		if len(args) > 0 {
			b.Dir = args[0]
		}
		file, err := b.Run(cmd.Context())
		if err != nil {
			return err
		}
		module, err := readModule(file)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case output.forPrograms():
			return writeValue(out, *output, map[string]any{"file": file, "size": len(module)})
		case *output == formatName:
			_, err = fmt.Fprintln(out, file)
			return err
		}
		_, err = fmt.Fprintf(out, "%s built, %s\n", file, sizeText(uint64(len(module))))
		return err
	}
	return cmd
}
