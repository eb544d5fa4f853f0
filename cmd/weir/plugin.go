package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newPluginCommand(c *client) *cobra.Command {
	listing := newGetCommand(c)
	get := listing.RunE
	listing.Use, listing.Short, listing.Example, listing.Args, listing.ValidArgsFunction = "list", "List the plugins", "", cobra.NoArgs, nil
	listing.RunE = func(cmd *cobra.Command, _ []string) error { return get(cmd, []string{resource.KindPlugin}) }
	return group("plugin", "Write, test, push and list WASM modules", newPluginNewCommand(), newPluginBuildCommand(),
		newPluginInspectCommand(), newPluginTestCommand(), newPluginBenchCommand(), newPluginRunCommand(), newPluginReplayCommand(c),
		newPluginPushCommand(c), listing)
}

func newPluginPushCommand(c *client) *cobra.Command {
	var memory string
	var fuel uint64
	var labels map[string]string
	var dryRun bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "push NAME FILE.wasm",
		Short: "Store a module under a name",
		Long: `Push checks a module, stores it and lets the Plugin of that name point at it.
Every proxy that uses the plugin goes over to the new module; requests that are
under way finish with the old one.`,
		Example: "  weir plugin push stamp stamp.wasm --wait\n  weir plugin push stamp stamp.wasm --memory 32Mi --fuel 20000000",
		Args:    cobra.ExactArgs(2),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&memory, "memory", "", "linear memory that one VM may have, such as 32Mi (what it has, or 16Mi)")
	cmd.Flags().Uint64Var(&fuel, "fuel", 0, "fuel that one callback may burn (what it has, or 10000000)")
	cmd.Flags().StringToStringVar(&labels, "label", nil, "labels of the plugin: key=value,…")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the module, store nothing")
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		module, err := readModule(args[1])
		if err != nil {
			return err
		}
		req := &weirv1.PushPluginRequest{Tenant: c.tenant, Name: args[0], Module: module, Labels: labels, DryRun: dryRun}
		bytes, err := parseBytes(memory)
		if err != nil {
			return usagef("--memory %s", err)
		}
		if bytes > 0 || fuel > 0 {
			req.Limits = &weirv1.PluginLimits{MemoryBytes: bytes, Fuel: fuel}
		}
		outcome, answer, err := c.push(cmd, req)
		if err != nil {
			return fmt.Errorf("push %s: %w", args[1], err)
		}
		plugin := resource.Wrap(answer.GetPlugin())
		printed := c.resourceView(func(*found, *cobra.Command, bool) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), outcomeLine(resource.Of(plugin), outcome))
			return err
		})
		if err := printed.write(cmd, *output, &found{resources: []*weirv1.Resource{plugin}, single: true}); err != nil {
			return err
		}
		if wait > 0 && !dryRun {
			api, err := c.connect(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return waitFor(cmd.Context(), api, answer.GetRevision(), wait, cmd.ErrOrStderr())
		}
		return nil
	}
	return cmd
}

// maxModule is the most that a server takes for one.
const maxModule = 64 << 20

func readModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	defer f.Close()
	module, err := io.ReadAll(io.LimitReader(f, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if len(module) > maxModule {
		return nil, fmt.Errorf("read module: %s is longer than %d MiB, the most that a module may have", file, maxModule>>20)
	}
	return module, nil
}

// push sends the module, and tells what became of the Plugin by what it was.
func (c *client) push(cmd *cobra.Command, req *weirv1.PushPluginRequest) (string, *weirv1.PushPluginResponse, error) {
	api, err := c.connect(cmd.ErrOrStderr())
	if err != nil {
		return "", nil, err
	}
	ref := resource.Ref{Kind: resource.KindPlugin, Tenant: c.tenant, Name: req.GetName()}
	before, err := api.Get(cmd.Context(), &weirv1.GetRequest{Ref: ref.Proto()})
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return "", nil, err
	}
	answer, err := api.PushPlugin(cmd.Context(), req)
	if err != nil {
		return "", nil, err
	}
	old := before.GetResource().GetPlugin()
	switch {
	case req.GetDryRun():
		return "admitted (dry run)", answer, nil
	case old == nil:
		return "created", answer, nil
	case old.GetMetadata().GetRevision() == answer.GetPlugin().GetMetadata().GetRevision():
		return "unchanged", answer, nil
	}
	return "updated", answer, nil
}

// parseBytes reads 65536, 64Ki or 16Mi; "" is 0.
func parseBytes(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	digits, unit := text, uint64(1)
	for suffix, size := range map[string]uint64{"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30} {
		if rest, ok := strings.CutSuffix(strings.TrimSuffix(text, "B"), suffix); ok {
			digits, unit = rest, size
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > math.MaxUint64/unit {
		return 0, fmt.Errorf("%q is not a size such as 32Mi", text)
	}
	return n * unit, nil
}
