package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/weirmesh/weir/bench/measure"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// weirServers are members as `weir server` runs them.
type weirServers struct {
	binary    string
	processes []*measure.Process
	nodes     []string // addresses of the node ports
	admins    []string // and of the admin API
	token, ca string
}

func startWeir(ctx context.Context, p place) (cluster, error) {
	binary, err := measure.WeirBinary()
	if err != nil {
		return nil, err
	}
	w := &weirServers{binary: binary}
	for i := range p.members {
		if err := w.add(ctx, p, i); err != nil {
			w.stop()
			return nil, err
		}
	}
	return w, nil
}

// add starts another member: the first founds the cluster, others join it.
func (w *weirServers) add(ctx context.Context, p place, i int) error {
	node, admin, err := twoPorts()
	if err != nil {
		return err
	}
	w.nodes = append(w.nodes, fmt.Sprintf("127.0.0.1:%d", node))
	w.admins = append(w.admins, fmt.Sprintf("127.0.0.1:%d", admin))
	data := filepath.Join(p.dir, fmt.Sprint("m", i))
	begin := []string{"--bootstrap"}
	if i > 0 {
		token, err := w.command(ctx, "join-token", "create", "--role", "server", "--ttl", "1h", "-o", "name")
		if err != nil {
			return err
		}
		begin = []string{"--join", w.nodes[0], "--token", token}
	}
	process, err := measure.Start(data, nil, w.binary, append([]string{"server", "--name", fmt.Sprint("m", i), "--data", data,
		"--node", w.nodes[i], "--admin", w.admins[i]}, begin...)...)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, process)
	return process.Until(ctx, func() error {
		if err := process.WeirReady(); err != nil {
			return err
		}
		if i == 0 {
			return w.readAdminEnv(filepath.Join(data, "admin.env"))
		}
		return w.votes(ctx, fmt.Sprint("m", i))
	})
}

// votes says whether the member votes: one that does not costs nobody a wait.
func (w *weirServers) votes(ctx context.Context, name string) error {
	c, err := w.connect(0)
	if err != nil {
		return err
	}
	defer c.close()
	status := new(weirv1.GetStatusResponse)
	err = c.(weirConnection).Invoke(ctx, weirv1connect.AdminServiceGetStatusProcedure, new(weirv1.GetStatusRequest), status)
	if err != nil {
		return err
	}
	for _, m := range status.GetMembers() {
		if m.GetName() == name && m.GetRole() == weirv1.Member_VOTER {
			return nil
		}
	}
	return fmt.Errorf("%s does not vote yet", name)
}

func (w *weirServers) readAdminEnv(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "WEIR_TOKEN":
			w.token = value
		case "WEIR_CA":
			w.ca = value
		}
	}
	return nil
}

func (w *weirServers) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Env = append(os.Environ(), "WEIR_ADMIN="+w.admins[0], "WEIR_TOKEN="+w.token, "WEIR_CA="+w.ca)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("weir %s: %w: %s", args[0], err, problems.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func (w *weirServers) stop() { stopAll(w.processes) }

func (w *weirServers) used() time.Duration { return usedBy(w.processes) }

// connect dials a member; each call shows the token.
func (w *weirServers) connect(member int) (connection, error) {
	secure, err := credentials.NewClientTLSFromFile(w.ca, "")
	if err != nil {
		return nil, err
	}
	c, err := grpc.NewClient(w.admins[member], grpc.WithTransportCredentials(secure), grpc.WithPerRPCCredentials(bearer(w.token)))
	if err != nil {
		return nil, err
	}
	return weirConnection{c}, nil
}

// bearer shows a token with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

type weirConnection struct{ *grpc.ClientConn }

func (c weirConnection) put(ctx context.Context, key string, number int64) error {
	request, err := proto.Marshal(&weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(&weirv1.Service{
		Metadata: &weirv1.Metadata{Name: key, Annotations: map[string]string{"value": numbered(number)}},
		Spec:     &weirv1.ServiceSpec{},
	})}})
	if err != nil {
		return err
	}
	var answer []byte
	return c.Invoke(ctx, weirv1connect.AdminServiceApplyProcedure, &request, &answer, grpc.ForceCodec(encoded{}))
}

func (c weirConnection) close() { c.Close() }
