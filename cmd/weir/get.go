package main

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func newGetCommand(c *client) *cobra.Command {
	var labels map[string]string
	cmd := &cobra.Command{
		Use:               "get [KIND [NAME…]]",
		Short:             "Read declarations",
		Example:           "  weir get\n  weir get routes\n  weir get route books -o yaml\n  weir get services -l team=a -o name",
		ValidArgsFunction: completeTargets(c),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringToStringVarP(&labels, "selector", "l", nil, "only what bears these labels: key=value,…")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		kind, refs, err := targets(args, c.tenant)
		if err != nil {
			return err
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		var found []*weirv1.Resource
		if len(refs) > 0 {
			found, err = c.getAll(cmd.Context(), api, refs)
		} else {
			found, err = list(cmd.Context(), api, &weirv1.ListRequest{Kind: kind, Tenant: c.tenant, Labels: labels})
		}
		if err != nil {
			return err
		}
		if len(found) == 0 && (*output == formatTable || *output == formatWide) {
			what := "resources"
			if kind != "" {
				what = resource.Plural(kind)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "there are no %s here\n", what)
			return nil
		}
		return c.writeResources(cmd.OutOrStdout(), *output, found, len(refs) == 1)
	}
	return cmd
}

// getAll reads resources by name. For one that is not there it looks for
// another that may have been meant.
func (c *client) getAll(ctx context.Context, api weirv1connect.AdminServiceClient, refs []resource.Ref) ([]*weirv1.Resource, error) {
	if c.tenant == "*" {
		return nil, usagef("--tenant \"*\" lists; name the tenant to read one resource of")
	}
	var found []*weirv1.Resource
	for _, ref := range refs {
		answer, err := api.Get(ctx, &weirv1.GetRequest{Ref: ref.Proto()})
		if connect.CodeOf(err) == connect.CodeNotFound {
			if near := resource.Nearest(ref.Name, c.names(ctx, ref.Kind)); near != "" {
				return nil, fmt.Errorf("%s; did you mean %q?", sentence(err), near)
			}
		}
		if err != nil {
			return nil, err
		}
		found = append(found, answer.GetResource())
	}
	return found, nil
}

func (c *client) writeResources(w io.Writer, f format, resources []*weirv1.Resource, single bool) error {
	switch f {
	case formatJSON:
		if single {
			return manifest.WriteJSON(w, resources[0])
		}
		return manifest.WriteList(w, resources)
	case formatYAML:
		return manifest.WriteYAML(w, resources...)
	case formatName:
		for _, r := range resources {
			if _, err := fmt.Fprintln(w, shortName(resource.Of(r))); err != nil {
				return err
			}
		}
		return nil
	}
	return writeTables(w, resources, f == formatWide, c.tenant == "*")
}
