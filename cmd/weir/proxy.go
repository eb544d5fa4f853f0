package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

func newProxyCommand(c *client) *cobra.Command {
	return group("proxy", "Operate edges and sidecars", newProxyListCommand(c), newProxyRemoveCommand(c))
}

func newProxyListCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the edges and sidecars, and which revision each has accepted",
		Example: "  weir proxy list\n  weir proxy list -o json | jq -r '.[] | select(.connected | not) | .name'",
		Args:    cobra.NoArgs,
	}
	var revision uint64
	return answered(c, cmd, view[[]*weirv1.ProxyStatus]{
		program: list[*weirv1.ProxyStatus],
		names:   proxyNames,
		table: func(cmd *cobra.Command, all []*weirv1.ProxyStatus, _ bool) error {
			return writeProxies(cmd.OutOrStdout(), all, revision)
		},
	}, func(cmd *cobra.Command, _ []string, api *session) ([]*weirv1.ProxyStatus, error) {
		s, err := api.GetStatus(cmd.Context(), &weirv1.GetStatusRequest{})
		revision = s.GetRevision()
		return s.GetProxies(), err
	})
}

func proxyNames(all []*weirv1.ProxyStatus) []string {
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = "proxy/" + p.GetName()
	}
	return names
}

// writeProxies tells how proxies are, where the newest revision is known.
func writeProxies(w io.Writer, all []*weirv1.ProxyStatus, revision uint64) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "No proxy has joined yet.")
		return err
	}
	rows := make([][]string, len(all))
	for i, p := range all {
		rows[i] = []string{p.GetName(), proxyState(p, revision), fmt.Sprint(p.GetRevision()),
			p.GetVersion(), p.GetAddress(), labelText(p.GetLabels()), age(p.GetLastSeen())}
	}
	return writeTable(w, []string{"PROXY", "STATE", "REVISION", "VERSION", "ADDRESS", "LABELS", "SEEN"}, rows)
}

func newProxyRemoveCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Shut an edge or a sidecar out for good",
		Long: `Shut an edge or a sidecar out for good: its key was stolen, or it is gone. Its
streams end at every server, it is told nothing and its certificate is not
renewed, and the instance that it has registered is withdrawn. To come back it
must join anew, with an empty directory and a token; revoke the token that it
joined with, if that may be used still.

Other proxies are told its key: they let it in no more, and break what they have
with it. One that is connected to no server now hears of it when it is.`,
		Example: "  weir proxy list\n  weir proxy remove books-1",
		Args:    cobra.ExactArgs(1),
	}
	return done(c, cmd, "removed", func(cmd *cobra.Command, args []string, api *session) (string, error) {
		name := strings.TrimPrefix(args[0], "proxy/")
		_, err := api.cluster.RemoveProxy(cmd.Context(), &weirv1.RemoveProxyRequest{Name: name})
		return "proxy/" + name, err
	})
}
