package main

import (
	"fmt"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newDeleteCommand(c *client) *cobra.Command {
	var files []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:               "delete KIND NAME… | -f FILE|DIR|-",
		Short:             "Remove declarations, all or none",
		Example:           "  weir delete route books\n  weir delete route/books service/books\n  weir delete -f shop.yaml",
		ValidArgsFunction: completeTargets(c),
	}
	output := outputFlag(cmd)
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check, but remove nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		refs, err := c.toDelete(cmd, args, files)
		if err != nil {
			return err
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		req := &weirv1.DeleteRequest{DryRun: dryRun}
		for _, ref := range refs {
			req.Refs = append(req.Refs, ref.Proto())
		}
		done, err := api.Delete(cmd.Context(), req)
		if err != nil {
			return err
		}
		if output.forPrograms() {
			return writeMessage(cmd.OutOrStdout(), *output, done)
		}
		outcome := "deleted"
		if dryRun {
			outcome = "deleted (dry run)"
		}
		for _, ref := range refs {
			line := shortName(ref)
			if *output != formatName {
				line = outcomeLine(ref, outcome)
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func (c *client) toDelete(cmd *cobra.Command, args, files []string) ([]resource.Ref, error) {
	if len(files) > 0 {
		if len(args) > 0 {
			return nil, usagef("name resources, or files with -f, but not both")
		}
		items, err := c.load(files, cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		refs := make([]resource.Ref, len(items))
		for i, item := range items {
			refs[i] = resource.Of(item.Resource)
		}
		return refs, nil
	}
	_, refs, err := targets(args, c.tenant)
	if err == nil && len(refs) == 0 {
		err = usagef("name what to delete: weir delete KIND NAME")
	}
	return refs, err
}
