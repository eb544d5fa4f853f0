package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// weirMesh is a call from one sidecar to another, over HTTP/3.
const weirMesh = "Weir mesh"

// What is promised of sidecars.
const (
	meshRate    = 1000             // requests a second
	mostMesh    = time.Millisecond // that two sidecars add at the 99th percentile
	mostSidecar = 30 << 20         // bytes resident, of one that has nothing to do
	meshLoops   = 16
)

// mesh starts two sidecars, the upstream behind one of them, and compares calls through
// both with calls to the upstream itself.
func (b *benchmark) mesh(ctx context.Context, out io.Writer) error {
	if !b.Wanted(weirMesh) {
		return nil
	}
	m := &meshed{b: b, dir: filepath.Join(b.dir, "mesh")}
	defer m.stop()
	if err := m.start(ctx); err != nil {
		return fmt.Errorf("start the mesh: %w", err)
	}
	resident, err := m.callee.Memory()
	if err != nil {
		return err
	}
	direct, through := &contender{name: "directly", address: b.upstreamA}, &contender{name: "two sidecars", address: m.outbound, host: "books.mesh"}
	fmt.Fprintf(out, "\nThe wait for an answer at %d requests/s, from service to service.\n", meshRate)
	more, err := b.waits(ctx, out, direct, through, meshLoops, meshRate)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s at the 99th percentile, µs more than without: %d, at most %d\n", measure.Verdict(more <= mostMesh), weirMesh,
		more.Microseconds(), mostMesh.Microseconds())
	fmt.Fprintf(out, "%s: %s, KB resident of a sidecar that has nothing to do: %d, at most %d\n", measure.Verdict(resident <= mostSidecar), weirMesh,
		resident>>10, int64(mostSidecar>>10))
	return nil
}

// meshed is a server and two sidecars.
type meshed struct {
	b              *benchmark
	dir            string
	server         *weir
	process        contender // of the server
	callee, caller *measure.Process
	outbound       string
}

func (m *meshed) stop() {
	for _, p := range []*measure.Process{m.caller, m.callee, m.process.process} {
		p.Stop()
	}
}

func (m *meshed) start(ctx context.Context) error {
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	binary, err := measure.WeirBinary()
	if err != nil {
		return err
	}
	m.server = &weir{binary: binary, place: place{dir: m.dir, upstream: m.b.upstreamA}}
	if err := m.server.start(ctx, &m.process); err != nil {
		return err
	}
	if err := m.server.apply(ctx, `
apiVersion: weir/v1
kind: Service
metadata: {name: books}
spec: {protocol: HTTP, endpoints: []}
---
apiVersion: weir/v1
kind: Service
metadata: {name: shop}
spec: {protocol: HTTP, endpoints: []}
`); err != nil {
		return err
	}
	if m.callee, _, err = m.sidecar(ctx, "books"); err != nil {
		return err
	}
	if m.caller, m.outbound, err = m.sidecar(ctx, "shop"); err != nil {
		return err
	}
	err = m.caller.Until(ctx, func() error { return plain.try(ctx, m.outbound, "books.mesh") })
	if err == nil {
		// What a start has needed is given back some seconds later.
		err = pause(ctx, 15*time.Second)
	}
	return err
}

// sidecar starts one, and says where its service would call others.
func (m *meshed) sidecar(ctx context.Context, service string) (p *measure.Process, outbound string, err error) {
	var token strings.Builder
	if err := m.server.cliTo(ctx, &token, "", "join-token", "create", "--role", "sidecar", "--service", service, "-o", "name"); err != nil {
		return nil, "", err
	}
	var ports [3]string
	for i := range ports {
		port, err := measure.FreePort()
		if err != nil {
			return nil, "", err
		}
		ports[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	p, err = measure.Start(filepath.Join(m.dir, service), []string{"WEIR_ACCESS_LOG=off"}, m.server.binary, "sidecar",
		"--name", service+"-1", "--service", service, "--address", m.b.upstreamA, "--servers", m.server.node,
		"--token", strings.TrimSpace(token.String()), "--data", filepath.Join(m.dir, service+"-data"),
		"--inbound", ports[0], "--outbound", ports[1], "--proxy-admin", ports[2])
	if err == nil {
		err = p.Until(ctx, p.WeirReady)
	}
	return p, ports[1], err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
