package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Tell the version of this program",
		Args:  cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		var err error
		switch *output {
		case formatJSON:
			err = json.NewEncoder(out).Encode(map[string]string{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
		case formatYAML:
			_, err = fmt.Fprintf(out, "version: %q\ngo: %q\nos: %q\narch: %q\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		case formatName:
			_, err = fmt.Fprintln(out, version)
		default:
			_, err = fmt.Fprintf(out, "weir %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		}
		return err
	}
	return cmd
}
