package main

import (
	"fmt"
	"io"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func newGetCommand(c *client) *cobra.Command {
	var labels map[string]string
	var stale bool
	cmd := &cobra.Command{
		Use:               "get [KIND|all [NAME…]]",
		Short:             "Read declarations",
		Example:           "  weir get\n  weir get routes\n  weir get route books -o yaml\n  weir get services -l team=a -o name",
		ValidArgsFunction: completeTargets(c),
	}
	cmd.Flags().StringToStringVarP(&labels, "selector", "l", nil, "only what bears these labels: key=value,…")
	cmd.Flags().BoolVar(&stale, "stale", false, "read what the member that answers has, without asking the leader")
	return answered(c, cmd, c.resourceView((*found).table), func(cmd *cobra.Command, args []string, api *session) (*found, error) {
		kind, refs, err := targets(args, c.tenant)
		if err != nil {
			return nil, err
		}
		if len(refs) > 0 {
			return c.getAll(cmd, api, refs, stale)
		}
		all, page, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: kind, Tenant: c.tenant, Labels: labels, Stale: stale})
		if err != nil {
			return nil, err
		}
		if stale {
			tellAge(cmd, page.GetRevision(), page.GetStaleness())
		}
		return &found{resources: all, kind: kind, tenants: c.tenant == "*"}, nil
	})
}

// found is what was read: one resource that was named, or several.
type found struct {
	resources       []*weirv1.Resource
	kind            string
	single, tenants bool
}

func (c *client) resourceView(table func(*found, *cobra.Command, bool) error) view[*found] {
	return view[*found]{
		program: func(w io.Writer, f format, m *found) error { return writeResources(w, f, m.resources, m.single) },
		names: func(m *found) []string {
			names := make([]string, len(m.resources))
			for i, r := range m.resources {
				names[i] = shortName(resource.Of(r))
			}
			return names
		},
		table: func(cmd *cobra.Command, m *found, wide bool) error { return table(m, cmd, wide) },
	}
}

func (m *found) table(cmd *cobra.Command, wide bool) error {
	if len(m.resources) > 0 {
		return writeTables(cmd.OutOrStdout(), m.resources, wide, m.tenants)
	}
	what := "resources"
	if m.kind != "" {
		what = resource.Plural(m.kind)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "there are no %s here\n", what)
	return nil
}

// tellAge says what a stale read is worth.
func tellAge(cmd *cobra.Command, revision uint64, staleness *durationpb.Duration) {
	age := "nobody knows how old"
	if staleness != nil {
		age = brief(staleness.AsDuration()) + " old"
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "read at revision %d, %s\n", revision, age)
}

// getAll reads resources by name. For one that is not there it looks for
// another that may have been meant.
func (c *client) getAll(cmd *cobra.Command, api *session, refs []resource.Ref, stale bool) (*found, error) {
	if c.tenant == "*" {
		return nil, usagef("--tenant \"*\" lists; name the tenant to read one resource of")
	}
	m := &found{single: len(refs) == 1}
	for _, ref := range refs {
		answer, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: ref.Proto(), Stale: stale})
		if connect.CodeOf(err) == connect.CodeNotFound {
			if near := resource.Nearest(ref.Name, c.names(cmd.Context(), ref.Kind)); near != "" {
				return nil, fmt.Errorf("%s; did you mean %q?", sentence(err), near)
			}
		}
		if err != nil {
			return nil, err
		}
		if stale {
			tellAge(cmd, answer.GetRevision(), answer.GetStaleness())
		}
		m.resources = append(m.resources, answer.GetResource())
	}
	return m, nil
}

// writeResources is for programs.
func writeResources(w io.Writer, f format, resources []*weirv1.Resource, single bool) error {
	switch {
	case f == formatYAML:
		return manifest.WriteYAML(w, resources...)
	case single:
		return manifest.WriteJSON(w, resources[0])
	}
	return manifest.WriteList(w, resources)
}
