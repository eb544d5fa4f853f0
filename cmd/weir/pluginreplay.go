package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weirmesh/weir/policy/plugintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// pluginReplay is one `weir plugin replay`.
type pluginReplay struct {
	client                    *client
	limits                    pluginLimits
	config, newConfig, plugin string
	tolerance                 float64
}

func newPluginReplayCommand(c *client) *cobra.Command {
	r := pluginReplay{client: c}
	cmd := &cobra.Command{
		Use:   "replay CAPTURE.har OLD NEW",
		Short: "Show what a new version makes of captured exchanges",
		Long: `Replay reads exchanges that a browser's developer tools or a proxy has saved (HAR),
has the old and the new version of a plugin take part in each of them, in their
order, and shows where verdict, heads, bodies or fuel differ. A version is a module's
file, or plugin/NAME for what the servers have. The same module may stand twice, to
compare two configs. It exits with 1 when there are differences.`,
		Example: "  weir plugin replay shop.har plugin/stamp stamp.wasm\n" +
			"  weir plugin replay shop.har stamp.wasm stamp.wasm --config stamp.yaml --new-config stricter.yaml",
		Args: cobra.ExactArgs(3),
	}
	output := outputFlag(cmd)
	r.limits.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.config, "config", "", "file with the policy's config, YAML or JSON")
	flags.StringVar(&r.newConfig, "new-config", "", "that of the new version (the same)")
	flags.StringVar(&r.plugin, "plugin", "", "name that the plugin is pushed under, for modules that hold several (that of plugin/NAME)")
	flags.Float64Var(&r.tolerance, "fuel-tolerance", 10, "by how many per cent fuel may differ; less than 0: by any")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		done, err := r.run(cmd, args[0], args[1], args[2])
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case output.forPrograms():
			err = writeValue(out, *output, &done)
		case *output == formatName:
			for _, d := range done.Differences {
				fmt.Fprintln(out, d.Entry)
			}
		default:
			err = writeReplay(out, &done)
		}
		if err == nil && len(done.Differences) > 0 {
			err = errDifferent
		}
		return err
	}
	return cmd
}

func (r *pluginReplay) run(cmd *cobra.Command, capture, before, after string) (done plugintest.Replayed, err error) {
	text, err := os.ReadFile(capture)
	if err != nil {
		return done, fmt.Errorf("read capture: %w", err)
	}
	cases, unanswered, err := plugintest.ParseCapture(capture, text)
	if err != nil {
		return done, err
	}
	if unanswered > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d exchanges got no answer and are left out\n", unanswered)
	}
	options, err := r.limits.options()
	if err != nil {
		return done, err
	}
	was, err := r.version(cmd, before, r.config, options)
	if err != nil {
		return done, err
	}
	defer was.Runner.Close()
	config := cmp.Or(r.newConfig, r.config)
	is, err := r.version(cmd, after, config, options)
	if err != nil {
		return done, err
	}
	defer is.Runner.Close()
	was.Plugin, is.Plugin = cmp.Or(r.plugin, was.Plugin, is.Plugin), cmp.Or(r.plugin, is.Plugin, was.Plugin)
	return plugintest.Replay(cmd.Context(), was, is, cases, r.tolerance/100)
}

// version gets a module and makes what runs it.
func (r *pluginReplay) version(cmd *cobra.Command, name, config string, options plugintest.Options) (v plugintest.Version, err error) {
	module, err := r.module(cmd, name)
	if err != nil {
		return v, err
	}
	read, err := readPolicyConfig(config)
	if err != nil {
		return v, err
	}
	if read != nil {
		if v.Config, err = protojson.Marshal(read); err != nil {
			return v, fmt.Errorf("read config: %w", err)
		}
	}
	if plugin, stored := strings.CutPrefix(name, "plugin/"); stored {
		v.Plugin = plugin
	}
	v.Runner, err = plugintest.NewRunner(module, options)
	return v, err
}

func (r *pluginReplay) module(cmd *cobra.Command, name string) ([]byte, error) {
	plugin, stored := strings.CutPrefix(name, "plugin/")
	if !stored {
		return readModule(name)
	}
	api, err := r.client.connect(cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	ref := resource.Ref{Kind: resource.KindPlugin, Tenant: r.client.tenant, Name: plugin}
	found, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: ref.Proto()})
	if err != nil {
		return nil, err
	}
	digest := found.GetResource().GetPlugin().GetSpec().GetDigest()
	module, err := api.GetModule(cmd.Context(), &weirv1.GetModuleRequest{Digest: digest})
	return module.GetModule(), err
}

func writeReplay(w io.Writer, done *plugintest.Replayed) error {
	for _, d := range done.Differences {
		fmt.Fprintf(w, "%d  %s\n", d.Entry, d.Name)
		for _, change := range d.Changes {
			fmt.Fprintf(w, "      %s\n", strings.ReplaceAll(change, "\n", "\n        "))
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d exchanges differ; fuel of all: %d, was %d\n", len(done.Differences), done.Exchanges, done.NewFuel, done.OldFuel)
	return err
}
