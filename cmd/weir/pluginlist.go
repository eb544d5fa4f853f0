package main

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weirmesh/weir/internal/signature"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// newPluginListCommand is get plugins, with what else one wants to know of them.
func newPluginListCommand(c *client) *cobra.Command {
	cmd := newGetCommand(c)
	get := cmd.RunE
	cmd.Use, cmd.Short, cmd.Example, cmd.Args, cmd.ValidArgsFunction = "list", "List the plugins", "", cobra.NoArgs, nil
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f := format(cmd.Flag("output").Value.String())
		if f != formatTable && f != formatWide {
			return get(cmd, []string{resource.KindPlugin})
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		labels, _ := cmd.Flags().GetStringToString("selector")
		stale, _ := cmd.Flags().GetBool("stale")
		return c.listPlugins(cmd, api, labels, stale, f == formatWide)
	}
	return cmd
}

func (c *client) listPlugins(cmd *cobra.Command, api *session, labels map[string]string, stale, wide bool) error {
	plugins, page, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindPlugin, Tenant: c.tenant, Labels: labels, Stale: stale})
	if err != nil {
		return err
	}
	if stale {
		tellAge(cmd, page.GetRevision(), page.GetStaleness())
	}
	if len(plugins) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "there are no plugins here")
		return nil
	}
	policies, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindPolicy, Tenant: c.tenant, Stale: stale})
	if err != nil {
		return err
	}
	trusts, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindPluginTrust, Tenant: c.tenant, Stale: stale})
	if err != nil {
		return err
	}
	trust := map[string]*weirv1.PluginTrust{}
	for _, r := range trusts {
		trust[resource.Of(r).Tenant] = r.GetPluginTrust()
	}
	header := []string{"PLUGIN", "DIGEST", "SIZE", "SIGNED BY", "USED BY", "STATE", "AGE"}
	if wide {
		header = append(header, "ABI", "REVISION", "LABELS")
	}
	if c.tenant == "*" {
		header = append([]string{"TENANT"}, header...)
	}
	rows := make([][]string, len(plugins))
	for i, r := range plugins {
		p, ref := r.GetPlugin(), resource.Of(r)
		rows[i] = []string{ref.Name, shortDigest(p.GetSpec().GetDigest()), byteText(p.GetStatus().GetSizeBytes()),
			signers(trust[ref.Tenant], ref.Name, p.GetSpec().GetDigest(), p.GetSpec().GetSignatures()),
			few(policiesOf(ref, policies)), pluginState(p, trust[ref.Tenant]), age(forceTime(p))}
		if wide {
			rows[i] = append(rows[i], p.GetStatus().GetAbi(), fmt.Sprint(p.GetMetadata().GetRevision()), labelText(p.GetMetadata().GetLabels()))
		}
		if c.tenant == "*" {
			rows[i] = append([]string{ref.Tenant}, rows[i]...)
		}
	}
	return writeTable(cmd.OutOrStdout(), header, rows)
}

// policiesOf are the names of the policies that use a plugin.
func policiesOf(plugin resource.Ref, policies []*weirv1.Resource) (names []string) {
	for _, r := range policies {
		if ref := resource.Of(r); ref.Tenant == plugin.Tenant && r.GetPolicy().GetSpec().GetPlugin() == plugin.Name {
			names = append(names, ref.Name)
		}
	}
	return names
}

// signers are the names of those that are trusted, and the keys that are not.
func signers(trust *weirv1.PluginTrust, name, digest string, signatures []*weirv1.PluginSignature) string {
	var by []string
	for _, s := range resource.Signatures(signatures) {
		one := resource.Trust(trust)
		one.Require = true
		names, err := one.Check(name, digest, []signature.Signature{s})
		if err != nil {
			names = []string{s.Key + " (not trusted)"}
		}
		by = append(by, names...)
	}
	return few(by)
}

// pluginState is a word or a few on how it stands.
func pluginState(p *weirv1.Plugin, trust *weirv1.PluginTrust) string {
	name := p.GetMetadata().GetName()
	if _, err := resource.Trust(trust).Check(name, p.GetSpec().GetDigest(), resource.Signatures(p.GetSpec().GetSignatures())); err != nil {
		return "not trusted"
	}
	canary, trial := p.GetSpec().GetCanary(), p.GetStatus().GetTrial()
	switch {
	case canary == nil:
		return "in force"
	case trial.GetState() == weirv1.PluginTrial_ABORTED:
		return "canary " + shortDigest(canary.GetDigest()) + " aborted"
	}
	return "canary " + shortDigest(canary.GetDigest()) + " " + percentText(canary.GetPercent())
}

// trustOf is whom a tenant trusts, nil for nobody.
func trustOf(cmd *cobra.Command, api *session, tenant string) (*weirv1.PluginTrust, error) {
	answer, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: resource.TrustRef(tenant).Proto()})
	if code := connect.CodeOf(err); err != nil && code != connect.CodeNotFound && code != connect.CodeInvalidArgument { // an earlier version knows no such kind
		return nil, err
	}
	return answer.GetResource().GetPluginTrust(), nil
}

func newPluginStatusCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status NAME",
		Short:   "Tell how a plugin and its canary fare",
		Example: "  weir plugin status stamp",
		Args:    cobra.ExactArgs(1),
	}
	return answered(c, cmd, view[*pluginStatus]{
		program: func(w io.Writer, f format, s *pluginStatus) error { return list(w, f, s.reports) },
		names: func(s *pluginStatus) []string {
			return []string{shortName(resource.Of(resource.Wrap(s.plugin)))}
		},
		table: func(cmd *cobra.Command, s *pluginStatus, _ bool) error { return s.write(cmd.OutOrStdout()) },
	}, func(cmd *cobra.Command, args []string, api *session) (*pluginStatus, error) {
		plugin, err := c.getPlugin(cmd, api, args[0])
		if err != nil {
			return nil, err
		}
		s := &pluginStatus{plugin: plugin}
		ref := resource.Of(resource.Wrap(plugin))
		if s.trust, err = trustOf(cmd, api, ref.Tenant); err != nil {
			return nil, err
		}
		policies, _, err := listAll(cmd.Context(), api, &weirv1.ListRequest{Kind: resource.KindPolicy, Tenant: ref.Tenant})
		if err != nil {
			return nil, err
		}
		s.usedBy = policiesOf(ref, policies)
		status, err := api.GetStatus(cmd.Context(), &weirv1.GetStatusRequest{})
		if err != nil {
			return nil, err
		}
		s.take(ref, status.GetProxies())
		return s, nil
	})
}

// pluginStatus is what is known of one plugin.
type pluginStatus struct {
	plugin  *weirv1.Plugin
	trust   *weirv1.PluginTrust
	usedBy  []string
	proxies []string
	reports []*weirv1.PluginReport // of the trial that goes on, by proxy
	trouble []string
}

func (s *pluginStatus) take(ref resource.Ref, proxies []*weirv1.ProxyStatus) {
	start := s.plugin.GetStatus().GetTrial().GetStartTime().AsTime()
	for _, p := range proxies {
		for _, r := range p.GetPlugins() {
			if r.GetTenant() == ref.Tenant && r.GetName() == ref.Name && r.GetStartTime().AsTime().Equal(start) {
				s.proxies, s.reports = append(s.proxies, p.GetName()), append(s.reports, r)
			}
		}
		for part := range strings.SplitSeq(p.GetProblem(), "; Plugin ") {
			if part = strings.TrimPrefix(part, "Plugin "); strings.HasPrefix(part, strings.TrimPrefix(ref.String(), "Plugin ")+": ") {
				s.trouble = append(s.trouble, p.GetName()+": "+part)
			}
		}
	}
}

func (s *pluginStatus) write(w io.Writer) error {
	spec, trial := s.plugin.GetSpec(), s.plugin.GetStatus().GetTrial()
	line := func(name, value string) { fmt.Fprintf(w, "%-12s%s\n", name+":", value) }
	name := s.plugin.GetMetadata().GetName()
	line("Plugin", name)
	line("In force", fmt.Sprintf("%s, for %s", spec.GetDigest(), age(forceTime(s.plugin))))
	line("Signed by", orNothing(signers(s.trust, name, spec.GetDigest(), spec.GetSignatures()), "nobody"))
	line("Used by", orNothing(strings.Join(s.usedBy, ", "), "no policy"))
	for _, trouble := range s.trouble {
		line("Refused", trouble)
	}
	if trial == nil {
		_, err := fmt.Fprintf(w, "%-12s%s\n", "Canary:", "none")
		return err
	}
	line("Canary", fmt.Sprintf("%s, %s of the exchanges, since %s", trial.GetDigest(), percentText(trial.GetPercent()), age(trial.GetStartTime())))
	line("Verdict", verdictText(trial))
	var rows [][]string
	if trial.GetCanary() != nil {
		rows = append(rows, countCells("all", "canary", trial.GetCanary()), countCells("all", "in force", trial.GetStable()))
	} else {
		for i, r := range s.reports {
			rows = append(rows, countCells(s.proxies[i], "canary", r.GetCanary()), countCells(s.proxies[i], "in force", r.GetStable()))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return writeTable(w, []string{"PROXY", "VERSION", "EXCHANGES", "FAILURES", "OUT OF FUEL", "5XX", "FUEL EACH"}, rows)
}

func countCells(proxy, version string, n *weirv1.PluginCounts) []string {
	each := uint64(0)
	if n.GetExchanges() > 0 {
		each = n.GetFuel() / n.GetExchanges()
	}
	return []string{proxy, version, fmt.Sprint(n.GetExchanges()), fmt.Sprint(n.GetFailures()), fmt.Sprint(n.GetOutOfFuel()), fmt.Sprint(n.GetServerErrors()), fmt.Sprint(each)}
}

// forceTime is when the version came into force that is.
func forceTime(p *weirv1.Plugin) *timestamppb.Timestamp {
	if v := p.GetStatus().GetVersions(); len(v) > 0 && v[0].GetDigest() == p.GetSpec().GetDigest() {
		return v[0].GetTime()
	}
	return p.GetMetadata().GetUpdateTime()
}

func verdictText(t *weirv1.PluginTrial) string {
	switch t.GetState() {
	case weirv1.PluginTrial_RUNNING:
		return "none yet: it goes on"
	case weirv1.PluginTrial_ABORTED:
		return fmt.Sprintf("aborted %s ago: %s", age(t.GetEndTime()), t.GetReason())
	case weirv1.PluginTrial_PROMOTED:
		return fmt.Sprintf("promoted %s ago", age(t.GetEndTime()))
	}
	return fmt.Sprintf("ended %s ago, without one", age(t.GetEndTime()))
}
