package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// targets reads what a verb is about: KIND, KIND NAME…, or KIND/NAME….
func targets(args []string, tenant string) (kind string, refs []resource.Ref, err error) {
	if len(args) == 0 || len(args) == 1 && args[0] == "all" {
		return "", nil, nil
	}
	if strings.Contains(args[0], "/") {
		for _, arg := range args {
			word, name, ok := strings.Cut(arg, "/")
			if !ok || name == "" {
				return "", nil, usagef("%q is not KIND/NAME", arg)
			}
			kind, err := parseKind(word)
			if err != nil {
				return "", nil, err
			}
			refs = append(refs, resource.Ref{Kind: kind, Tenant: tenant, Name: name})
		}
		return "", refs, nil
	}
	if kind, err = parseKind(args[0]); err != nil {
		return "", nil, err
	}
	for _, name := range args[1:] {
		refs = append(refs, resource.Ref{Kind: kind, Tenant: tenant, Name: name})
	}
	return kind, refs, nil
}

func parseKind(word string) (string, error) {
	if kind, ok := resource.ParseKind(word); ok {
		return kind, nil
	}
	kinds := strings.ToLower(strings.Join(resource.Kinds(), ", "))
	if near := resource.Nearest(strings.TrimSuffix(word, "s"), resource.Kinds()); near != "" {
		return "", usagef("there is no kind %q; did you mean %q?", word, strings.ToLower(near))
	}
	return "", usagef("there is no kind %q; the kinds are %s", word, kinds)
}

// completeTargets offers kinds, then the names that the server knows.
func completeTargets(c *client) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return strings.Split(strings.ToLower(strings.Join(resource.Kinds(), " ")), " "), cobra.ShellCompDirectiveNoFileComp
		}
		kind, ok := resource.ParseKind(args[0])
		if !ok || fromEnvironment(cmd.Flags()) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
		defer cancel()
		return c.names(ctx, kind), cobra.ShellCompDirectiveNoFileComp
	}
}

// names lists the resources of a kind, none when that cannot be known.
func (c *client) names(ctx context.Context, kind string) []string {
	api, err := c.connect(io.Discard)
	if err != nil {
		return nil
	}
	resources, _, err := listAll(ctx, api, &weirv1.ListRequest{Kind: kind, Tenant: c.tenant})
	if err != nil {
		return nil
	}
	names := make([]string, len(resources))
	for i, r := range resources {
		names[i] = resource.Of(r).Name
	}
	return names
}
