package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirmesh/weir/node"
	"github.com/weirmesh/weir/policy/plugintest"
	"github.com/weirmesh/weir/policy/scaffold"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// What `weir plugin run` declares is called so.
const runName = "run"

// lookEvery is how often files are looked at, and changeBound how long a change
// may take to be in force.
const (
	lookEvery   = 200 * time.Millisecond
	changeBound = 2 * time.Minute
)

func newPluginRunCommand() *cobra.Command {
	var r pluginRun
	cmd := &cobra.Command{
		Use:   "run [DIR|FILE.wasm]",
		Short: "Run a plugin on a local edge, and follow its files",
		Long: `Run builds the plugin in a directory, by default the current one, or takes a
module that is built already, and has an edge of its own run it before a service:
the one at --to, or one that answers with what it was asked. What is saved is in
force a moment later, also the file of --config; what does not build or is refused
leaves the one before in force. What the plugin logs is shown, and each request.
Nothing is kept, and no server is needed.`,
		Example: "  weir plugin run stamp\n  weir plugin run stamp.wasm --config stamp.yaml --to 127.0.0.1:9000 --listen 127.0.0.1:8088",
		Args:    cobra.MaximumNArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&r.config, "config", "", "file with the policy's config, YAML or JSON")
	flags.StringVar(&r.to, "to", "", "service to pass requests to: HOST:PORT, http://… or https://… (one that tells what it got)")
	flags.StringVar(&r.listen, "listen", devGateway, "address to serve on")
	r.limits.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.source = "."
		if len(args) > 0 {
			r.source = args[0]
		}
		return r.run(cmd)
	}
	return cmd
}

// pluginRun is one `weir plugin run`.
type pluginRun struct {
	source, config, to, listen string
	limits                     pluginLimits

	options plugintest.Options // what the limits say
	err     io.Writer
	name    string // of the source, for people
	module  string // the file that is pushed
	build   *scaffold.Build
	api     weirv1connect.AdminServiceClient
	gateway *weirv1.Gateway
	service *weirv1.Service
}

func (r *pluginRun) run(cmd *cobra.Command) error {
	r.err = cmd.ErrOrStderr()
	dir, err := os.MkdirTemp("", "weir-run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if r.options, err = r.limits.options(); err != nil {
		return err
	}
	to := r.to
	if to == "" {
		echo, err := startEcho()
		if err != nil {
			return err
		}
		defer echo.Close()
		to = echo.address
	}
	if r.service, err = runService(to); err != nil {
		return err
	}
	if err := r.prepare(dir); err != nil {
		return err
	}
	return runProcess(cmd.Context(), node.Config{
		Data: filepath.Join(dir, "data"), Compiled: r.options.CacheDir, Version: version, Logger: newShownLog(r.err), Out: io.Discard, Hints: r.err,
		Server: &node.ServerConfig{Name: runName, Node: anyPort, Admin: anyPort, Open: true, Bootstrap: true},
		Edge:   &node.EdgeConfig{Name: runName, AccessLog: &shownRequests{r.err}, Drain: time.Second},
		Task:   r.follow,
	})
}

// ownReason is the end of what an edge says of a policy that it refuses, which is
// the plugin's: there is no other one here.
func ownReason(refused string) string {
	_, reason, ok := strings.Cut(refused, " of plugin "+runName+": ")
	if !ok {
		return refused
	}
	return reason
}

// anyPort is for what nobody else has to find.
const anyPort = "127.0.0.1:0"

// prepare finds out what is to be run, and on which port.
func (r *pluginRun) prepare(dir string) error {
	info, err := os.Stat(r.source)
	if err != nil {
		return fmt.Errorf("run plugin: %w", err)
	}
	absolute, err := filepath.Abs(r.source)
	if err != nil {
		return fmt.Errorf("run plugin: %w", err)
	}
	r.name, r.module = filepath.Base(absolute), r.source
	if info.IsDir() {
		r.module = filepath.Join(dir, "plugin.wasm")
		r.build = &scaffold.Build{Dir: r.source, Output: r.module, Debug: true}
	}
	host, port, err := net.SplitHostPort(r.listen)
	if err != nil {
		return usagef("--listen %q is not HOST:PORT", r.listen)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return usagef("--listen %q does not name a port", r.listen)
	}
	probe, err := net.Listen("tcp", r.listen)
	if err != nil {
		return &processError{fmt.Errorf("serve on %s: %w", r.listen, err), "edge"}
	}
	r.gateway = &weirv1.Gateway{
		Metadata: &weirv1.Metadata{Name: runName},
		Spec: &weirv1.GatewaySpec{Listeners: []*weirv1.Listener{
			{Name: "http", Address: host, Port: uint32(number), Protocol: weirv1.Listener_HTTP},
		}},
	}
	return probe.Close()
}

// runService is the service at an address as a person writes it.
func runService(to string) (*weirv1.Service, error) {
	s := &weirv1.Service{Metadata: &weirv1.Metadata{Name: runName}, Spec: new(weirv1.ServiceSpec)}
	if strings.Contains(to, "://") {
		u, err := url.Parse(to)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, usagef("--to %q is not HOST:PORT, http://HOST[:PORT] or https://HOST[:PORT]", to)
		}
		port := "80"
		if u.Scheme == "https" {
			s.Spec.Tls, port = new(weirv1.UpstreamTLS), "443"
		}
		if u.Port() != "" {
			port = u.Port()
		}
		to = net.JoinHostPort(u.Hostname(), port)
	}
	s.Spec.Endpoints = []*weirv1.Endpoint{{Address: to}}
	return s, nil
}

// follow puts the plugin in force, and again whenever its files change, until ctx
// ends.
func (r *pluginRun) follow(ctx context.Context, api weirv1connect.AdminServiceClient) error {
	r.api = api
	watched := pluginFiles{source: r.source, config: r.config}
	seen := watched.look()
	if err := r.renew(ctx); err != nil {
		fmt.Fprintf(r.err, "%s\nnot in force; save a change and it is tried again\n", err)
	}
	for {
		changed, err := watched.await(ctx, seen)
		if err != nil {
			return err
		}
		seen = changed
		if err := r.renew(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintf(r.err, "%s\nnot in force; what was before still is\n", err)
		}
	}
}

// renew builds, pushes and declares, and says what came of it.
func (r *pluginRun) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, changeBound)
	defer cancel()
	begun := time.Now()
	if r.build != nil {
		if _, err := r.build.Run(ctx); err != nil {
			return err
		}
	}
	module, err := readModule(r.module)
	if err != nil {
		return err
	}
	config, err := readPolicyConfig(r.config)
	if err != nil {
		return err
	}
	if err := r.declare(ctx, module, config); err != nil {
		return err
	}
	_, err = fmt.Fprintf(r.err, "%s in force at http://%s after %s (%s)\n", r.name, r.listen, time.Since(begun).Round(time.Millisecond), sizeText(uint64(len(module))))
	return err
}

func (r *pluginRun) declare(ctx context.Context, module []byte, config *structpb.Struct) error {
	pushed, err := r.api.PushPlugin(ctx, &weirv1.PushPluginRequest{Name: runName, Module: module, Force: true, // the configuration is tried next
		Limits: &weirv1.PluginLimits{MemoryBytes: r.options.MemoryBytes, Fuel: r.options.Fuel}})
	if err != nil {
		return fmt.Errorf("push %s: %w", r.module, err)
	}
	parent := &weirv1.ParentRef{Name: runName}
	applied, err := r.api.Apply(ctx, &weirv1.ApplyRequest{Resources: []*weirv1.Resource{
		resource.Wrap(r.gateway), resource.Wrap(r.service),
		resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: runName}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{parent}, Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: runName}}}},
		}}),
		resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: runName}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: resource.KindRoute, Name: runName}}, Plugin: runName, Config: config,
		}}),
	}})
	if err != nil {
		return err
	}
	return r.await(ctx, max(pushed.GetRevision(), applied.GetRevision()))
}

// await returns once the edge has taken a revision, or why it has not.
func (r *pluginRun) await(ctx context.Context, revision uint64) error {
	answer, err := r.api.WaitRevision(ctx, &weirv1.WaitRevisionRequest{Revision: revision, Timeout: durationpb.New(changeBound)})
	if err != nil {
		return err
	}
	for _, p := range answer.GetProxies() {
		switch {
		case p.GetRefusedRevision() >= revision:
			return errors.New(ownReason(p.GetRefusedReason()))
		case p.GetProblem() != "":
			return errors.New(p.GetProblem())
		case p.GetRevision() < revision:
			return fmt.Errorf("the edge has not taken it within %s", changeBound)
		}
	}
	return nil
}
