package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func newDiffCommand(c *client) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Show what apply would change; exit 1 when it would",
		Args:  noArguments,
	}
	output := outputFlag(cmd)
	filesFlag(cmd, &files)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		items, _, api, err := c.loadFor(cmd, files)
		if err != nil {
			return err
		}
		done, err := api.Apply(cmd.Context(), &weirv1.ApplyRequest{Resources: resourcesOf(items), DryRun: true})
		if err != nil {
			return inFiles(err, items)
		}
		done.Results = slices.DeleteFunc(done.Results, func(r *weirv1.ApplyResult) bool {
			return r.GetOutcome() == weirv1.ApplyResult_UNCHANGED
		})
		out := cmd.OutOrStdout()
		if output.forPrograms() || *output == formatName {
			if err := writeOutcome(out, *output, done, true); err != nil || len(done.Results) == 0 {
				return err
			}
			return errDifferent
		}
		p := painter{os.Getenv("NO_COLOR") == "" && isTerminal(out)}
		files := map[resource.Ref]string{}
		for _, item := range items {
			files[resource.Of(item.Resource)] = item.File
		}
		different := false
		for _, result := range done.GetResults() {
			stored, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: result.GetRef()})
			if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
				return err
			}
			text, err := difference(stored.GetResource(), result.GetResource(), files[resource.RefOf(result.GetRef())])
			if err != nil {
				return err
			}
			different = different || text != ""
			if _, err := io.WriteString(out, p.paint(text)); err != nil {
				return err
			}
		}
		if different {
			return errDifferent
		}
		return nil
	}
	return cmd
}

// difference compares what people declare of two versions; an absent one is
// compared as empty.
func difference(stored, wanted *weirv1.Resource, file string) (string, error) {
	name := shortName(resource.Of(wanted))
	before, after := "/dev/null", fmt.Sprintf("%s (%s)", name, file)
	var old, updated bytes.Buffer
	if stored != nil {
		before = name + " (stored)"
		if err := manifest.WriteYAML(&old, declared(stored)); err != nil {
			return "", err
		}
	}
	if err := manifest.WriteYAML(&updated, declared(wanted)); err != nil {
		return "", err
	}
	text := diff.Diff(before, old.Bytes(), after, updated.Bytes())
	_, text, _ = bytes.Cut(text, []byte("\n")) // a line that only patch reads
	return string(text), nil
}

// painter colours a diff for people.
type painter struct{ colour bool }

func (p painter) paint(text string) string {
	if !p.colour {
		return text
	}
	const reset = "\x1b[0m"
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			b.WriteString("\x1b[1m" + body + reset + "\n")
		case strings.HasPrefix(line, "@@"):
			b.WriteString("\x1b[36m" + body + reset + "\n")
		case strings.HasPrefix(line, "-"):
			b.WriteString("\x1b[31m" + body + reset + "\n")
		case strings.HasPrefix(line, "+"):
			b.WriteString("\x1b[32m" + body + reset + "\n")
		default:
			b.WriteString(line)
		}
	}
	return b.String()
}
