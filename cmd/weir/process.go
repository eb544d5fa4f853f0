package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weirmesh/weir/internal/handover"
	"github.com/weirmesh/weir/internal/signature"
	"github.com/weirmesh/weir/node"
	"github.com/weirmesh/weir/policy/wasm"
)

// processCommands are the verbs that run a process. Their context ends with
// SIGINT or SIGTERM.
func processCommands() []*cobra.Command {
	return []*cobra.Command{newDevCommand(), newServerCommand(), newEdgeCommand(), newSidecarCommand()}
}

// The addresses that are listened on unless a flag says otherwise.
const (
	defaultNode       = ":7400"
	defaultDevNode    = "127.0.0.1:7400"
	defaultPortal     = "127.0.0.1:7402"
	defaultProxyAdmin = "127.0.0.1:7410"
)

// processError is why a process did not start, or ended: its hints are not those
// of a call.
type processError struct {
	cause error
	role  string // as a join token has it
}

func (e *processError) Error() string { return e.cause.Error() }
func (e *processError) Unwrap() error { return e.cause }

func (e *processError) hint() string {
	switch {
	case errors.Is(e, syscall.EADDRINUSE):
		return "another program listens there; stop it, or choose another address with a flag (--help names them)"
	case connect.CodeOf(e) == connect.CodeUnauthenticated:
		return "make another on a server: weir join-token create --role " + e.role
	case connect.CodeOf(e) == connect.CodeAlreadyExists:
		return "choose another --name; or, if that server is lost, free its name first: weir cluster remove NAME"
	}
	return ""
}

func runProcess(ctx context.Context, config node.Config) error {
	if err := config.Validate(); err != nil {
		return usagef("%s", err)
	}
	if err := node.Run(ctx, config); err != nil {
		role := "edge"
		switch {
		case config.Server != nil:
			role = "server"
		case config.Sidecar != nil:
			role = "sidecar --service " + config.Sidecar.Service
		}
		return &processError{err, role}
	}
	return nil
}

// runUpgradable runs a process that hands over to another one when it is told
// to, and may itself follow one that did.
func runUpgradable(ctx context.Context, config node.Config) (err error) {
	if config.Inherited, err = handover.Inherited(); err != nil {
		return &processError{cause: err}
	}
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return &processError{cause: fmt.Errorf("find the program: %w", err)}
	}
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2)
	defer signal.Stop(upgrade)
	config.Upgrade, config.Program = upgrade, handover.Program{Path: path, Args: os.Args}
	return runProcess(ctx, config)
}

// processFlags are what all processes have in common.
type processFlags struct {
	data, logLevel, logFormat string
}

func (f *processFlags) add(flags *pflag.FlagSet, data string) {
	usage := "directory for everything that is kept; made where it is missing (WEIR_DATA)"
	flags.StringVar(&f.data, "data", data, usage)
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error (WEIR_LOG_LEVEL)")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json (WEIR_LOG_FORMAT)")
}

// proxyFlags are what processes that carry traffic have in common.
type proxyFlags struct {
	admin, access, memory string
	connections           int
	pluginKeys            string
	pluginLimits          map[string]string
}

func (f *proxyFlags) add(flags *pflag.FlagSet) {
	addProxyAdmin(flags, &f.admin)
	addAccessLog(flags, &f.access)
	flags.StringVar(&f.memory, "memory-limit", "auto", "memory that the process may have, such as 512Mi: requests are turned away when it is short; "+
		"auto: that of its control group; off (WEIR_MEMORY_LIMIT)")
	flags.IntVar(&f.connections, "max-connections", 0, "connections of clients, over all listeners; 0: what there are file descriptors for "+
		"(WEIR_MAX_CONNECTIONS)")
	flags.StringVar(&f.pluginKeys, "plugin-keys", "", "file of public keys, one of which must have signed each plugin, whatever the servers say "+
		"(WEIR_PLUGIN_KEYS)")
	flags.StringToStringVar(&f.pluginLimits, "plugin-limits", nil, "what plugins may take here, such as tenant-memory=2Gi,max-fuel=50000000: NAME=VALUE[,NAME=VALUE] "+
		"(WEIR_PLUGIN_LIMITS)")
}

// config is what the flags say of a proxy.
func (f *proxyFlags) config(cmd *cobra.Command) (*node.EdgeConfig, error) {
	log, err := accessLog(cmd, f.access)
	if err != nil {
		return nil, err
	}
	limit, err := memoryLimit(f.memory)
	if err != nil {
		return nil, err
	}
	if f.connections < 0 {
		return nil, usagef("--max-connections must not be less than 0")
	}
	config := &node.EdgeConfig{Admin: f.admin, AccessLog: log, MemoryLimit: limit, MaxConnections: f.connections}
	if config.PluginLimits, err = readPluginLimits(f.pluginLimits); err != nil {
		return nil, err
	}
	if f.pluginKeys != "" {
		if config.PluginKeys, err = readKeyFile(f.pluginKeys, signature.ParsePublics); err != nil {
			return nil, fmt.Errorf("read --plugin-keys: %w", err)
		}
	}
	return config, nil
}

// memoryLimit reads --memory-limit, in the words of node.EdgeConfig.
func memoryLimit(text string) (int64, error) {
	switch text {
	case "auto":
		return 0, nil
	case "off":
		return -1, nil
	}
	n, err := parseBytes(text)
	if err != nil || n < minMemory || n > math.MaxInt64 {
		return 0, usagef("--memory-limit must be auto, off or a size of at least 64Mi, not %q", text)
	}
	return int64(n), nil
}

const minMemory = 64 << 20

// readPluginLimits reads --plugin-limits.
func readPluginLimits(texts map[string]string) (wasm.Caps, error) {
	caps := wasm.Caps{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		n, err := parseBytes(texts[name])
		if err != nil {
			return nil, usagef("--plugin-limits: %s must be a number or a size such as 64Mi, not %q", name, texts[name])
		}
		caps[name] = n
	}
	if err := caps.Validate(); err != nil {
		return nil, usagef("--plugin-limits: %s", err)
	}
	return caps, nil
}

// config is what the flags say so far, with the log on standard error.
func (f *processFlags) config(cmd *cobra.Command) (node.Config, error) {
	if f.data == "" {
		return node.Config{}, usagef("name a directory with --data")
	}
	data, err := filepath.Abs(f.data)
	if err != nil {
		return node.Config{}, err
	}
	logger, err := newLogger(cmd.ErrOrStderr(), f.logLevel, f.logFormat)
	if err != nil {
		return node.Config{}, err
	}
	return node.Config{Data: data, Version: version, Logger: logger, Out: cmd.OutOrStdout(), Hints: cmd.ErrOrStderr()}, nil
}

func newLogger(out io.Writer, level, format string) (*slog.Logger, error) {
	options := new(slog.HandlerOptions)
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level must be debug, info, warn or error, not %q", level)
	}
	options.Level = least
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	}
	return nil, usagef("--log-format must be text or json, not %q", format)
}

// accessLog opens what --access-log names; nil is no log. The file stays open
// as long as the process.
func accessLog(cmd *cobra.Command, where string) (io.Writer, error) {
	switch where {
	case "off":
		return nil, nil
	case "stderr":
		return cmd.ErrOrStderr(), nil
	case "stdout":
		return cmd.OutOrStdout(), nil
	case "":
		return nil, usagef("--access-log must be off, stderr, stdout or a file")
	}
	f, err := os.OpenFile(where, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open access log: %w", err)
	}
	return f, nil
}

func addAccessLog(flags *pflag.FlagSet, where *string) {
	flags.StringVar(where, "access-log", "stderr", "a JSON line for each request: off, stderr, stdout or a file (WEIR_ACCESS_LOG)")
}

func addProxyAdmin(flags *pflag.FlagSet, address *string) {
	flags.StringVar(address, "proxy-admin", defaultProxyAdmin, "address of the proxy's own metrics, health and debug pages (WEIR_PROXY_ADMIN)")
}

// hostLabel is this host's name as a node may bear it, or a fallback.
func hostLabel(fallback string) string {
	name, err := os.Hostname()
	if err != nil {
		return fallback
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	name = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name), "-")
	return cmp.Or(name[:min(len(name), 63)], fallback)
}
