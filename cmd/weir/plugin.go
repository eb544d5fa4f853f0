package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"

	"github.com/weirmesh/weir/examples/plugins"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func newPluginCommand(c *client) *cobra.Command {
	return group("plugin", "Write, test, ship and list WASM modules", newPluginNewCommand(), newPluginBuildCommand(),
		newPluginInspectCommand(), newPluginTestCommand(), newPluginBenchCommand(), newPluginRunCommand(), newPluginReplayCommand(c),
		newPluginKeygenCommand(), newPluginSignCommand(), newPluginVerifyCommand(), newPluginPushCommand(c), newPluginPullCommand(c), newPluginListCommand(c),
		newPluginStatusCommand(c), newPluginHistoryCommand(c), newPluginPromoteCommand(c), newPluginRollbackCommand(c))
}

// getPlugin reads one plugin.
func (c *client) getPlugin(cmd *cobra.Command, api *session, name string) (*weirv1.Plugin, error) {
	found, err := c.getAll(cmd, api, []resource.Ref{{Kind: resource.KindPlugin, Tenant: c.tenant, Name: name}}, false)
	if err != nil {
		return nil, err
	}
	return found.resources[0].GetPlugin(), nil
}

func newPluginPushCommand(c *client) *cobra.Command {
	var memory string
	var fuel uint64
	var labels map[string]string
	var dryRun, force bool
	var wait time.Duration
	var share percent
	var sign signing
	cmd := &cobra.Command{
		Use:   "push NAME [FILE]",
		Short: "Store a module under a name",
		Long: `Push checks a module, stores it and lets the Plugin of that name point at it.
Every proxy that uses the plugin goes over to the new module; requests that are
under way finish with the old one. With --canary the module takes part in a
share of the exchanges, beside the one in force, until it is promoted or fares
badly (weir plugin status).

A module that refuses the configuration of a policy that uses the plugin is not
taken: no proxy could go over to it. Apply the policy together with a Plugin that
has the module, or use --force.

The file is a module, or an OCI image layout that holds one: a directory or a
tar file, with the image's name behind a colon where there are several.

Without a file it is the standard policy of that name that comes with weir: ` + strings.Join(plugins.Standard(), ", ") + `. The name may go on behind a dash: jwt-partners is jwt, with limits of its own.`,
		Example: "  weir plugin push jwt\n  weir plugin push stamp stamp.wasm --wait\n  weir plugin push stamp stamp.wasm --memory 32Mi --fuel 20000000\n  weir plugin push stamp stamp.wasm --sign release.key --canary 5%",
		Args:    cobra.RangeArgs(1, 2),
	}
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&memory, "memory", "", "linear memory that one VM may have, such as 32Mi (what it has, or 16Mi)")
	cmd.Flags().Uint64Var(&fuel, "fuel", 0, "fuel that one callback may burn (what it has, or 10000000)")
	cmd.Flags().StringToStringVar(&labels, "label", nil, "labels of the plugin: key=value,…")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the module, store nothing")
	cmd.Flags().BoolVar(&force, "force", false, "also where it refuses the configuration of a policy that uses the plugin")
	cmd.Flags().Var(&share, "canary", "share of the exchanges that it takes part in, beside the module in force: 5%")
	sign.add(cmd)
	waitFlag(cmd, &wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, module, err := moduleToPush(args)
		if err != nil {
			return err
		}
		req := &weirv1.PushPluginRequest{Tenant: c.tenant, Name: args[0], Module: module, Labels: labels, DryRun: dryRun, CanaryPercent: float64(share), Force: force}
		if req.Signatures, err = sign.signatures(args[0], module); err != nil {
			return err
		}
		bytes, err := parseBytes(memory)
		if err != nil {
			return usagef("--memory %s", err)
		}
		if bytes > 0 || fuel > 0 {
			req.Limits = &weirv1.PluginLimits{MemoryBytes: bytes, Fuel: fuel}
		}
		outcome, answer, err := c.push(cmd, req)
		if err != nil {
			return fmt.Errorf("push %s: %w", file, err)
		}
		api, err := c.connect(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		if dryRun {
			wait = 0
		}
		return c.changed(cmd, api, *output, answer.GetPlugin(), answer.GetRevision(), outcome, false, wait)
	}
	return cmd
}

// moduleToPush is the file that is named, or the standard policy of the Plugin's name.
func moduleToPush(args []string) (what string, module []byte, err error) {
	if len(args) == 2 {
		module, err = readModule(args[1])
		return args[1], module, err
	}
	for name := args[0]; ; {
		if slices.Contains(plugins.Standard(), name) {
			module, err = plugins.Module(name)
			return "the standard policy " + name, module, err
		}
		dash := strings.LastIndexByte(name, '-')
		if dash < 0 {
			return "", nil, usagef("there is no standard policy %q: name a file, or one of %s", args[0], strings.Join(plugins.Standard(), ", "))
		}
		name = name[:dash]
	}
}

// maxModule is the most that a server takes for one.
const maxModule = 64 << 20

// readModule reads a module from a file, or out of an OCI image layout.
func readModule(file string) ([]byte, error) {
	if module, is, err := readImage(file); is || err != nil {
		return module, err
	}
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
	case req.GetCanaryPercent() > 0:
		return canaryText(answer.GetPlugin()), answer, nil
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
