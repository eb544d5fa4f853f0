package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// percent is a share as people write it: 5%, 0.5%, 5.
type percent float64

func (p *percent) String() string {
	if *p == 0 {
		return ""
	}
	return percentText(float64(*p))
}

func (p *percent) Type() string { return "percent" }

func (p *percent) Set(text string) error {
	n, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(n > 0 && n <= 100) {
		return fmt.Errorf("%q is not a share such as 5%%: more than 0 and at most 100", text)
	}
	*p = percent(n)
	return nil
}

func percentText(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) + "%" }

func newPluginPromoteCommand(c *client) *cobra.Command {
	var share percent
	var force, dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "promote NAME",
		Short: "Bring a plugin's canary into force, or give it another share",
		Long: `Promote brings the canary into force. With --canary it stays one, and its trial
begins anew with that share of the exchanges, also where it was aborted.`,
		Example: "  weir plugin push stamp stamp.wasm --canary 5%\n  weir plugin promote stamp --canary 25%\n  weir plugin promote stamp --wait",
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.Flags().Var(&share, "canary", "share of the exchanges that it takes part in: 5%")
	cmd.Flags().BoolVar(&force, "force", false, "even though it was aborted, or refuses a policy's configuration")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		answer, err := api.PromotePlugin(cmd.Context(), &weirv1.PromotePluginRequest{Tenant: c.tenant, Name: args[0],
			CanaryPercent: float64(share), Force: force, DryRun: dryRun})
		if err != nil {
			return err
		}
		word := "promoted: " + shortDigest(answer.GetPlugin().GetSpec().GetDigest()) + " is in force"
		if share != 0 {
			word = canaryText(answer.GetPlugin())
		}
		return c.changed(cmd, api, *output, answer.GetPlugin(), answer.GetRevision(), word, dryRun, wait)
	}
	return cmd
}

func canaryText(p *weirv1.Plugin) string {
	canary := p.GetSpec().GetCanary()
	return "canary: " + shortDigest(canary.GetDigest()) + " takes part in " + percentText(canary.GetPercent()) + " of the exchanges"
}

func newPluginRollbackCommand(c *client) *cobra.Command {
	var to string
	var dryRun, force bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "rollback NAME",
		Short: "Bring a version of a plugin back into force",
		Long: `Rollback brings back the version that was in force before, or the one that --to
names by the beginning of its digest (weir plugin history). While there is a
canary and no version is named, it ends the canary.`,
		Example: "  weir plugin rollback stamp --wait\n  weir plugin rollback stamp --to 3f1c0a",
		Args:    cobra.ExactArgs(1),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&to, "to", "", "digest of the version, or how it begins")
	cmd.Flags().BoolVar(&force, "force", false, "also where it refuses the configuration of a policy that uses the plugin")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		answer, err := api.RollbackPlugin(cmd.Context(), &weirv1.RollbackPluginRequest{Tenant: c.tenant, Name: args[0], Digest: to, DryRun: dryRun, Force: force})
		if err != nil {
			return err
		}
		word := "rolled back: " + shortDigest(answer.GetPlugin().GetSpec().GetDigest()) + " is in force"
		return c.changed(cmd, api, *output, answer.GetPlugin(), answer.GetRevision(), word, dryRun, wait)
	}
	return cmd
}

// changed prints what became of a plugin, and waits until it is so everywhere.
func (c *client) changed(cmd *cobra.Command, api *session, f format, plugin *weirv1.Plugin, revision uint64, word string, dryRun bool, wait time.Duration) error {
	wrapped := resource.Wrap(plugin)
	if dryRun {
		word += " (dry run)"
	}
	printed := c.resourceView(func(*found, *cobra.Command, bool) error {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), outcomeLine(resource.Of(wrapped), word))
		return err
	})
	if err := printed.write(cmd, f, &found{resources: []*weirv1.Resource{wrapped}, single: true}); err != nil {
		return err
	}
	if wait > 0 && !dryRun {
		return waitFor(cmd.Context(), api, revision, wait, cmd.ErrOrStderr())
	}
	return nil
}

func newPluginHistoryCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history NAME",
		Short:   "List the versions of a plugin that are kept",
		Example: "  weir plugin history stamp",
		Args:    cobra.ExactArgs(1),
	}
	return answered(c, cmd, view[*history]{
		program: func(w io.Writer, f format, h *history) error { return list(w, f, h.versions) },
		names: func(h *history) (names []string) {
			for _, v := range h.versions {
				names = append(names, v.GetDigest())
			}
			return names
		},
		table: func(cmd *cobra.Command, h *history, wide bool) error { return h.write(cmd.OutOrStdout(), wide) },
	}, func(cmd *cobra.Command, args []string, api *session) (*history, error) {
		plugin, err := c.getPlugin(cmd, api, args[0])
		if err != nil {
			return nil, err
		}
		h := &history{plugin: plugin}
		h.versions = h.plugin.GetStatus().GetVersions()
		if len(h.versions) == 0 {
			h.versions = []*weirv1.PluginVersion{{Digest: h.plugin.GetSpec().GetDigest(), Signatures: h.plugin.GetSpec().GetSignatures(),
				SizeBytes: h.plugin.GetStatus().GetSizeBytes(), Abi: h.plugin.GetStatus().GetAbi(), Time: h.plugin.GetMetadata().GetUpdateTime()}}
		}
		h.trust, err = trustOf(cmd, api, resource.Of(resource.Wrap(plugin)).Tenant)
		return h, err
	})
}

// history is the versions of one plugin.
type history struct {
	plugin   *weirv1.Plugin
	versions []*weirv1.PluginVersion
	trust    *weirv1.PluginTrust
}

func (h *history) write(w io.Writer, wide bool) error {
	rows := make([][]string, len(h.versions))
	for i, v := range h.versions {
		digest, state := shortDigest(v.GetDigest()), ""
		if wide {
			digest = v.GetDigest()
		}
		if v.GetDigest() == h.plugin.GetSpec().GetDigest() {
			state = "in force"
		}
		rows[i] = []string{digest, byteText(v.GetSizeBytes()), v.GetAbi(), signers(h.trust, h.plugin.GetMetadata().GetName(), v.GetDigest(), v.GetSignatures()),
			v.GetActor(), age(v.GetTime()), state}
	}
	return writeTable(w, []string{"DIGEST", "SIZE", "ABI", "SIGNED BY", "BY", "AGE", "STATE"}, rows)
}
