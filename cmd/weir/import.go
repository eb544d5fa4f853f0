package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/contract"
	"github.com/weirmesh/weir/contract/declare"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newImportCommand(c *client) *cobra.Command {
	return group("import", "Declare what others describe", newImportOpenAPICommand(c))
}

func newImportOpenAPICommand(c *client) *cobra.Command {
	var o declare.Options
	var dryRun, replace bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "openapi FILE|-",
		Short: "Declare an Api, its Contract, a Route and a Service for an OpenAPI document",
		Long: `Declare an Api, its Contract, a Route and a Service for an OpenAPI document.

The Route takes what is below the path of the document's server, and sends it to
the Service, which is that server, by TLS where its URL is https. Where the
document names no server, or several, --server says which; with a path of its
own, that is where the service has the API. Requests are held to the document,
and answers that are not as it says are reported.

With -o yaml, -o json or --dry-run the declarations are printed and not stored.`,
		Example: "  weir import openapi books.openapi.yaml --gateway public\n" +
			"  weir import openapi books.openapi.yaml --server http://10.0.0.1:9001 --name books --wait\n" +
			"  weir import openapi books.openapi.yaml --gateway public -o yaml > books.yaml",
		Args: cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "what all of it is called (default: after the document's title)")
	flags.StringVar(&o.Gateway, "gateway", "", "the Gateway by which requests come (default: the only one)")
	flags.StringArrayVar(&o.Hostnames, "hostname", nil, "only requests for this host; may be repeated")
	flags.StringVar(&o.Server, "server", "", "URL of the service, where the document does not say it (default: the document's server)")
	flags.BoolVar(&dryRun, "dry-run", false, "print the declarations, store nothing")
	flags.BoolVar(&replace, "replace", false, "replace what is declared under the name")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if c.tenant == "*" {
			return usagef("name the tenant to write for: --tenant TENANT")
		}
		document, err := readOpenAPI(args[0], cmd.InOrStdin())
		if err != nil {
			return err
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if o.Gateway == "" {
			if o.Gateway, err = c.onlyGateway(cmd, api); err != nil {
				return err
			}
		}
		o.Tenant = c.tenant
		made, err := declare.Resources(document, o)
		var problems contract.Problems
		switch {
		case errors.As(err, &problems):
			return fmt.Errorf("%s is refused:\n%w", args[0], err)
		case err != nil:
			return fmt.Errorf("%w; see --server and --name", err)
		case dryRun || output.forPrograms():
			return writeDeclared(cmd.OutOrStdout(), *output, made)
		}
		if !replace {
			if err := requireNew(cmd, api, made); err != nil {
				return err
			}
		}
		done, err := api.Apply(cmd.Context(), &weirv1.ApplyRequest{Resources: made})
		if err != nil {
			return err
		}
		if err := writeOutcome(cmd.OutOrStdout(), *output, done, false); err != nil || wait == 0 {
			return err
		}
		return waitFor(cmd.Context(), api, done.GetRevision(), wait, cmd.ErrOrStderr())
	}
	return cmd
}

// readOpenAPI reads a file, or standard input.
func readOpenAPI(name string, stdin io.Reader) ([]byte, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	document, err := io.ReadAll(io.LimitReader(from, resource.MaxContract+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return document, nil // one that is too long is refused as such
}

// onlyGateway is the Gateway that there is.
func (c *client) onlyGateway(cmd *cobra.Command, api *session) (string, error) {
	all, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindGateway, Tenant: c.tenant})
	if err != nil {
		return "", err
	}
	var names []string
	for _, r := range all {
		names = append(names, resource.Of(r).Name)
	}
	switch len(names) {
	case 0:
		return "", errors.New("there is no Gateway by which requests could come: apply one, or name it with --gateway")
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("there are several Gateways; name one with --gateway: %s", strings.Join(names, ", "))
}

// requireNew refuses to replace what somebody has declared.
func requireNew(cmd *cobra.Command, api *session, made []*weirv1.Resource) error {
	var there []string
	for _, r := range made {
		_, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: resource.Of(r).Proto()})
		switch {
		case err == nil:
			there = append(there, shortName(resource.Of(r)))
		case connect.CodeOf(err) != connect.CodeNotFound:
			return err
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("%s: declared already; give another --name, or --replace", strings.Join(there, ", "))
	}
	return nil
}

// writeDeclared prints declarations as files have them.
func writeDeclared(w io.Writer, f format, made []*weirv1.Resource) error {
	for i, r := range made {
		made[i] = declared(r)
	}
	if f != formatJSON {
		f = formatYAML
	}
	return writeResources(w, f, made, false)
}
