package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// format is how to print.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

// outputFlag adds -o. Every verb takes every format, so that a script need not
// know which verb it is about: where there is nothing more to show, wide is the
// table.
func outputFlag(cmd *cobra.Command) *format {
	formats := []format{formatTable, formatWide, formatJSON, formatYAML, formatName}
	f := formatTable
	cmd.Flags().VarP(&formatValue{&f, formats}, "output", "o", "format: "+joinFormats(formats))
	_ = cmd.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return strings.Split(joinFormats(formats), ", "), cobra.ShellCompDirectiveNoFileComp
	})
	return &f
}

type formatValue struct {
	value   *format
	allowed []format
}

func (v *formatValue) String() string { return string(*v.value) }
func (v *formatValue) Type() string   { return "format" }
func (v *formatValue) Set(s string) error {
	if !slices.Contains(v.allowed, format(s)) {
		return fmt.Errorf("must be one of %s", joinFormats(v.allowed))
	}
	*v.value = format(s)
	return nil
}

func joinFormats(formats []format) string {
	words := make([]string, len(formats))
	for i, f := range formats {
		words[i] = string(f)
	}
	return strings.Join(words, ", ")
}

// writeMessage prints an answer as JSON or YAML.
func writeMessage(w io.Writer, f format, m proto.Message) error {
	if f == formatJSON {
		return manifest.WriteMessageJSON(w, m)
	}
	return manifest.WriteMessageYAML(w, m)
}

// forPrograms says that a format is read by a program, which wants the answer
// itself and not what a person should know of it.
func (f format) forPrograms() bool { return f == formatJSON || f == formatYAML }

// shortName is "route/books", what -o name prints and the verbs take.
func shortName(ref resource.Ref) string {
	return strings.ToLower(ref.Kind) + "/" + ref.Name
}

// outcomeLine is "route/books created", with the tenant unless it is the
// default one.
func outcomeLine(ref resource.Ref, outcome string) string {
	line := shortName(ref) + " " + outcome
	if ref.Tenant != resource.DefaultTenant && ref.Tenant != "" {
		line += " (tenant " + ref.Tenant + ")"
	}
	return line
}

// writeTable aligns columns; an empty cell is "-".
func writeTable(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// age is how long ago, in the biggest unit that fits.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return brief(max(0, time.Since(t.AsTime()).Truncate(time.Second)))
}

// labelText is "a=b,c=d", sorted.
func labelText(labels map[string]string) string {
	var pairs []string
	for key, value := range labels {
		pairs = append(pairs, key+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// isTerminal says whether a person reads this.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// declared is a copy without what Weir writes: the part that people write.
func declared(r *weirv1.Resource) *weirv1.Resource {
	r = proto.CloneOf(r)
	body := resource.Body(r)
	if body == nil {
		return r
	}
	resource.ClearStatus(r)
	if meta := body.GetMetadata(); meta != nil {
		meta.Revision, meta.CreateRevision, meta.CreateTime, meta.UpdateTime = 0, 0, nil, nil
	}
	return r
}
