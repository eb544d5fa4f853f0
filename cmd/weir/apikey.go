package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/consumer/apikey"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newKeyCommand(c *client) *cobra.Command {
	return group("key", "The keys by which Apps call APIs", newKeyCreateCommand(c), newKeyListCommand(c), newKeyRevokeCommand(c))
}

func newKeyCreateCommand(c *client) *cobra.Command {
	var app, name string
	var expires expiry
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "create --app APP",
		Short: "Make a key for an App; it is shown once",
		Long: `Make a key for an App; it is shown once. What is kept of it is its SHA-256, in a
Credential, which weir get, export and delete know like any other declaration.

A key lets its App call what its Subscriptions have. Proxies know it within a
moment; with --wait the command returns once they do.`,
		Example: "  weir key create --app demo\n  weir key create --app demo --name laptop --expires 90d\n" +
			"  KEY=$(weir key create --app demo --wait -o name)\n  curl -H \"x-api-key: $KEY\" http://shop.example/books",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&app, "app", "", "the App that the key is for")
	cmd.Flags().StringVar(&name, "name", "", "what the key is called (default: after the App)")
	cmd.Flags().Var(&expires, "expires", "when the key ends: in 12h, 90d or 8w, or at 2027-01-31 (default: never)")
	waitFlag(cmd, &wait)
	_ = cmd.RegisterFlagCompletionFunc("app", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.names(cmd.Context(), resource.KindApp), cobra.ShellCompDirectiveNoFileComp
	})
	v := view[*weirv1.CreateCredentialResponse]{program: message[*weirv1.CreateCredentialResponse],
		names: func(m *weirv1.CreateCredentialResponse) []string { return []string{m.GetKey()} }}
	v.table = func(cmd *cobra.Command, m *weirv1.CreateCredentialResponse, _ bool) error {
		ends := "never ends"
		if t := m.GetCredential().GetSpec().GetExpireTime(); t != nil {
			ends = "ends at " + t.AsTime().Format(time.RFC3339)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s is a key of %s and %s; it is not shown again.\n",
			m.GetCredential().GetMetadata().GetName(), m.GetCredential().GetSpec().GetApp(), ends)
		return writeLines(cmd.OutOrStdout(), v.names(m))
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case app == "":
			return usagef("say which App the key is for: --app APP")
		case c.tenant == "*":
			return usagef("name the tenant of the App: --tenant TENANT")
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		req := &weirv1.CreateCredentialRequest{Tenant: c.tenant, App: app, Name: name}
		if !expires.IsZero() {
			req.ExpireTime = timestamppb.New(expires.Time)
		}
		made, err := api.CreateCredential(cmd.Context(), req)
		if err == nil {
			err = v.write(cmd, *output, made) // whether proxies know it or not: nobody else has the key
		}
		if err == nil && wait > 0 {
			err = waitFor(cmd.Context(), api, made.GetRevision(), wait, cmd.ErrOrStderr())
		}
		return err
	}
	return cmd
}

// expiry is a time that is written as one, or as how far it is away.
type expiry struct {
	time.Time
	text string
}

func (e *expiry) String() string { return e.text }
func (e *expiry) Type() string   { return "time" }
func (e *expiry) Set(s string) (err error) {
	e.text = s
	e.Time, err = parseExpiry(s, time.Now())
	return err
}

func parseExpiry(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(d), nil
	}
	days := map[string]int{"d": 1, "w": 7}
	digits := strings.TrimRight(s, "dw")
	if n, err := strconv.Atoi(digits); err == nil && n > 0 && n < 100_000 && days[s[len(digits):]] > 0 {
		return now.AddDate(0, 0, n*days[s[len(digits):]]), nil
	}
	return time.Time{}, errors.New("write how long the key lasts, as 12h, 90d or 8w, or when it ends, as 2027-01-31")
}

func newKeyListCommand(c *client) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the keys, without what is secret of them",
		Example: "  weir key list\n  weir key list --app demo",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&app, "app", "", "only those of this App")
	return answered(c, cmd, view[[]*weirv1.Resource]{
		program: func(w io.Writer, f format, all []*weirv1.Resource) error { return writeResources(w, f, all, false) },
		names: func(all []*weirv1.Resource) []string {
			names := make([]string, len(all))
			for i, r := range all {
				names[i] = resource.Of(r).Name
			}
			return names
		},
		table: func(cmd *cobra.Command, all []*weirv1.Resource, _ bool) error { return c.writeKeysOfApps(cmd, all) },
	}, func(cmd *cobra.Command, _ []string, api *session) ([]*weirv1.Resource, error) {
		all, err := c.credentials(cmd, api)
		if app == "" {
			return all, err
		}
		return slices.DeleteFunc(all, func(r *weirv1.Resource) bool { return r.GetCredential().GetSpec().GetApp() != app }), err
	})
}

func (c *client) credentials(cmd *cobra.Command, api *session) ([]*weirv1.Resource, error) {
	all, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindCredential, Tenant: c.tenant})
	return all, err
}

func (c *client) writeKeysOfApps(cmd *cobra.Command, all []*weirv1.Resource) error {
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are no keys")
		return nil
	}
	header := []string{"NAME", "APP", "KEY", "EXPIRES IN", "AGE"}
	if c.tenant == "*" {
		header = append([]string{"TENANT"}, header...)
	}
	rows := make([][]string, len(all))
	for i, r := range all {
		ref, spec := resource.Of(r), r.GetCredential().GetSpec()
		left := "never"
		if t := spec.GetExpireTime(); t != nil {
			left = "expired"
			if d := time.Until(t.AsTime()); d > 0 {
				left = brief(d)
			}
		}
		rows[i] = []string{ref.Name, spec.GetApp(), spec.GetPrefix() + "…", left, age(resource.Meta(r).GetCreateTime())}
		if c.tenant == "*" {
			rows[i] = append([]string{ref.Tenant}, rows[i]...)
		}
	}
	return writeTable(cmd.OutOrStdout(), header, rows)
}

func newKeyRevokeCommand(c *client) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "revoke NAME|KEY",
		Short: "Let nobody call with a key any more",
		Long: `Let nobody call with a key any more. It is told by its name, by how it begins
where only one begins so, or by the whole key, for one that was found where it
should not be. Proxies refuse it within a moment; with --wait the command
returns once they do.`,
		Example: "  weir key list --app demo\n  weir key revoke demo-3fk2ab\n  weir key revoke weir_3kTq9Zx --wait",
		Args:    cobra.ExactArgs(1),
	}
	waitFlag(cmd, &wait)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return c.names(cmd.Context(), resource.KindCredential), cobra.ShellCompDirectiveNoFileComp
	}
	return done(c, cmd, "revoked", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		if c.tenant == "*" {
			return "", usagef("name the tenant of the key: --tenant TENANT")
		}
		name := strings.TrimPrefix(args[0], "credential/")
		revision, err := c.revoke(cmd, api, name)
		if connect.CodeOf(err) == connect.CodeNotFound {
			if name, err = c.keyLike(cmd, api, name); err == nil {
				revision, err = c.revoke(cmd, api, name)
			}
		}
		if err == nil && wait > 0 {
			err = waitFor(cmd.Context(), api, revision, wait, cmd.ErrOrStderr())
		}
		return "key/" + name, err
	})
}

func (c *client) revoke(cmd *cobra.Command, api *session, name string) (revision uint64, err error) {
	ref := resource.Ref{Kind: resource.KindCredential, Tenant: c.tenant, Name: name}
	gone, err := api.Delete(cmd.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{ref.Proto()}})
	return gone.GetRevision(), err
}

// keyLike is the name of the one key that begins so, or is it.
func (c *client) keyLike(cmd *cobra.Command, api *session, text string) (string, error) {
	all, err := c.credentials(cmd, api)
	if err != nil {
		return "", err
	}
	digest := apikey.Sum(text)
	var names []string
	for _, r := range all {
		spec := r.GetCredential().GetSpec()
		if strings.EqualFold(spec.GetSha256(), hex.EncodeToString(digest[:])) {
			return resource.Of(r).Name, nil
		}
		if strings.HasPrefix(spec.GetPrefix(), text) {
			names = append(names, resource.Of(r).Name)
		}
	}
	switch len(names) {
	case 0:
		return "", errors.New("there is no such key: weir key list names those that there are")
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%d keys begin so: %s", len(names), few(names))
}
