package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func newDescribeCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "describe KIND NAME…",
		Short:             "Tell all about declarations, and what uses them",
		Example:           "  weir describe service books\n  weir describe route/books",
		ValidArgsFunction: completeTargets(c),
	}
	return answered(c, cmd, c.resourceView(func(m *found, cmd *cobra.Command, _ bool) error {
		api, err := c.connect(io.Discard)
		if err != nil {
			return err
		}
		all, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Tenant: c.tenant})
		if err != nil {
			return err
		}
		for i, r := range m.resources {
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := describe(cmd.OutOrStdout(), r, all); err != nil {
				return err
			}
		}
		return nil
	}), func(cmd *cobra.Command, args []string, api *session) (*found, error) {
		_, refs, err := targets(args, c.tenant)
		if err != nil {
			return nil, err
		}
		if len(refs) == 0 {
			return nil, usagef("name what to describe: weir describe KIND NAME")
		}
		return c.getAll(cmd, api, refs, false)
	})
}

func describe(w io.Writer, r *weirv1.Resource, all []*weirv1.Resource) error {
	ref, meta := resource.Of(r), resource.Meta(r)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-13s%s\n", name+":", value)
		}
	}
	line("Kind", ref.Kind)
	line("Name", ref.Name)
	line("Tenant", ref.Tenant)
	line("Labels", labelText(meta.GetLabels()))
	line("Annotations", labelText(meta.GetAnnotations()))
	line("Revision", fmt.Sprint(meta.GetRevision()))
	line("Created", when(meta.GetCreateTime()))
	line("Updated", when(meta.GetUpdateTime()))
	line("Refers to", strings.Join(refersTo(r), ", "))
	line("Used by", strings.Join(usedBy(ref, all), ", "))
	if err := writeChains(w, r, all); err != nil {
		return err
	}
	for _, part := range []string{"spec", "status"} {
		if err := writePart(w, r, part); err != nil {
			return err
		}
	}
	return nil
}

// writePart prints the spec or the status, indented under its name.
func writePart(w io.Writer, r *weirv1.Resource, part string) error {
	m := resource.Body(r).ProtoReflect()
	field := m.Descriptor().Fields().ByTextName(part)
	if field == nil || !m.Has(field) {
		return nil
	}
	var b bytes.Buffer
	if err := manifest.WriteMessageYAML(&b, m.Get(field).Message().Interface()); err != nil {
		return err
	}
	text := strings.TrimSuffix(b.String(), "\n")
	_, err := fmt.Fprintf(w, "%s:\n  %s\n", strings.ToUpper(part[:1])+part[1:], strings.ReplaceAll(text, "\n", "\n  "))
	return err
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", t.AsTime().Format(time.RFC3339), age(t))
}

func refersTo(r *weirv1.Resource) []string {
	var names []string
	for reference := range resource.References(r) {
		if name := shortName(reference.To); !slices.Contains(names, name) && reference.To.Kind != resource.KindBlob {
			names = append(names, name)
		}
	}
	return names
}

func usedBy(ref resource.Ref, all []*weirv1.Resource) []string {
	var names []string
	for _, other := range all {
		for reference := range resource.References(other) {
			if reference.To == ref {
				names = append(names, shortName(resource.Of(other)))
				break
			}
		}
	}
	return names
}
