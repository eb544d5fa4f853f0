package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
	"github.com/weirmesh/weir/resource/openapi"
)

func newImportCommand(c *client) *cobra.Command {
	return group("import", "Make declarations of what others have written", newImportOpenAPICommand(c))
}

func newImportOpenAPICommand(c *client) *cobra.Command {
	o := openapi.Options{}
	var state string
	var show, dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "openapi FILE|-",
		Short: "Declare what an OpenAPI document describes",
		Long: `Declare what an OpenAPI document (3.0 or 3.1, YAML or JSON) describes: a
Contract that holds it, the Api with its version, a Route below the paths of its
servers, and the Service at the first server that has a host.

A Route and a Service of that name that are there already stay as they are, and
an Api gets the version and the Contract alone: the document of a next version
can be imported over the one before.`,
		Example: "  weir import openapi books.openapi.yaml\n" +
			"  weir import openapi books.openapi.yaml --upstream 127.0.0.1:9001 --hostname shop.example\n" +
			"  weir import openapi books.openapi.yaml --print > books.yaml",
		Args: cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "what Api, Route and Service are called (default: the document's title)")
	flags.StringVar(&o.Gateway, "gateway", "public", "the Gateway that the Route is attached to")
	flags.StringSliceVar(&o.Hostnames, "hostname", nil, "hosts that the Route is for (default: all of the Gateway's)")
	flags.StringVar(&o.Upstream, "upstream", "", "where the service is: HOST:PORT (default: the document's first server)")
	flags.StringVar(&state, "state", "PUBLISHED", "the Api's state: DRAFT or PUBLISHED")
	flags.BoolVar(&show, "print", false, "write the declarations instead of storing them")
	flags.BoolVar(&dryRun, "dry-run", false, "check everything, store nothing")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.State = weirv1.ApiSpec_State(weirv1.ApiSpec_State_value[strings.ToUpper(state)]); o.State != weirv1.ApiSpec_DRAFT && o.State != weirv1.ApiSpec_PUBLISHED {
			return usagef("--state must be DRAFT or PUBLISHED, not %q", state)
		}
		o.Tenant = cmp.Or(c.tenant, resource.DefaultTenant)
		declared, err := declareDocument(cmd.InOrStdin(), args[0], o)
		if err != nil {
			return err
		}
		if show {
			return manifest.WriteYAML(cmd.OutOrStdout(), declared.Resources()...)
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		resources, err := besideWhatIsThere(cmd.Context(), api, declared)
		if err != nil {
			return err
		}
		done, err := api.Apply(cmd.Context(), &weirv1.ApplyRequest{Resources: resources, DryRun: dryRun})
		if err != nil {
			return fmt.Errorf("import %s: %w", args[0], err)
		}
		return applied(cmd, api, *output, done, dryRun, wait)
	}
	return cmd
}

func declareDocument(stdin io.Reader, name string, o openapi.Options) (*openapi.Declarations, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := readText(in, name)
	if err != nil {
		return nil, err
	}
	declared, err := openapi.Declare(text, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (see --name and --upstream)", name, err)
	}
	return declared, nil
}

// besideWhatIsThere leaves out what people may have changed since it was imported.
func besideWhatIsThere(ctx context.Context, api *session, d *openapi.Declarations) ([]*weirv1.Resource, error) {
	resources := d.Resources()
	for _, r := range slices.Clone(resources) {
		ref := resource.Of(r)
		got, err := api.Get(ctx, &weirv1.GetRequest{Ref: ref.Proto()})
		if connect.CodeOf(err) == connect.CodeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		there := slices.Index(resources, r)
		switch ref.Kind {
		case resource.KindRoute, resource.KindService:
			resources = slices.Delete(resources, there, there+1)
		case resource.KindApi:
			old := got.GetResource().GetApi()
			old.Spec.Version, old.Spec.ContractRef = d.Api.GetSpec().GetVersion(), d.Api.GetSpec().GetContractRef()
			resources[there] = resource.Wrap(old)
		}
	}
	return resources, nil
}
