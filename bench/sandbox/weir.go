package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// address is where a tenant's requests go.
func (w *weir) address(tenant string) string { return fmt.Sprintf("127.0.0.1:%d", w.ports[tenant]) }

// service answers all there is with the same half kilobyte. It lasts as long as
// this process.
func service() string {
	body := bytes.Repeat([]byte("x"), 512)
	return httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = rw.Write(body)
	})).Listener.Addr().String()
}

func (w *weir) declareTenants(ctx context.Context, config string) error {
	upstream := service()
	for tenant, port := range w.ports {
		if err := w.apply(ctx, strings.NewReplacer("{TENANT}", tenant, "{PORT}", fmt.Sprint(port), "{UPSTREAM}", upstream).Replace(`
apiVersion: weir/v1
kind: Gateway
metadata: {name: public, tenant: {TENANT}}
spec: {listeners: [{name: http, port: {PORT}, address: 127.0.0.1, protocol: HTTP}]}
---
apiVersion: weir/v1
kind: Service
metadata: {name: books, tenant: {TENANT}}
spec: {endpoints: [{address: "{UPSTREAM}"}]}
---
apiVersion: weir/v1
kind: Route
metadata: {name: all, tenant: {TENANT}}
spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: books}]}]}
`)); err != nil {
			return err
		}
	}
	if err := w.push(ctx, "a", "transform", w.module); err != nil {
		return err
	}
	return w.apply(ctx, fmt.Sprintf(`
apiVersion: weir/v1
kind: Policy
metadata: {name: stamp, tenant: a}
spec: {targetRefs: [{kind: Route, name: all}], plugin: transform, config: %s}
`, config))
}

// declareBad says what the plugin of a tenant does on every request.
func (w *weir) declareBad(ctx context.Context, tenant, does string) error {
	return w.apply(ctx, fmt.Sprintf(`
apiVersion: weir/v1
kind: Policy
metadata: {name: bad, tenant: %s}
spec: {targetRefs: [{kind: Route, name: all}], plugin: bad, config: {do: %s}}
`, tenant, does))
}

func (w *weir) apply(ctx context.Context, text string) error {
	items, err := manifest.Parse("bench.yaml", []byte(text))
	if err != nil {
		return err
	}
	req := new(weirv1.ApplyRequest)
	for _, item := range items {
		req.Resources = append(req.Resources, item.Resource)
	}
	done, err := w.api.Apply(ctx, req)
	if err != nil {
		return err
	}
	return w.await(ctx, done.GetRevision())
}

// await waits until a revision is in force at the edge. The server waits for whoever is
// connected, and so for nobody when the edge is not.
func (w *weir) await(ctx context.Context, revision uint64) error {
	answer, err := w.api.WaitRevision(ctx, &weirv1.WaitRevisionRequest{Revision: revision})
	switch {
	case err != nil:
		return err
	case !answer.GetDone():
		return fmt.Errorf("revision %d is not in force: %v", revision, answer.GetProxies())
	case !slices.ContainsFunc(answer.GetProxies(), (*weirv1.ProxyStatus).GetConnected):
		return errors.New("the edge is not connected")
	}
	return nil
}

func (w *weir) push(ctx context.Context, tenant, name string, module []byte) error {
	done, err := w.api.PushPlugin(ctx, &weirv1.PushPluginRequest{Tenant: tenant, Name: name, Module: module})
	if err != nil {
		return err
	}
	return w.await(ctx, done.GetRevision())
}

// twoModules stores a module twice, the second time with a section that means
// nothing, so that its digest is another; a plugin for each keeps them.
func (w *weir) twoModules(ctx context.Context) (digests [2]string, err error) {
	other := append(bytes.Clone(w.module), 0, 6, 5, 'o', 't', 'h', 'e', 'r') // a custom section
	for i, m := range [][]byte{w.module, other} {
		name := fmt.Sprint("kept-", i)
		if err := w.push(ctx, "a", name, m); err != nil {
			return digests, err
		}
		ref := resource.Ref{Kind: resource.KindPlugin, Tenant: "a", Name: name}
		stored, err := w.api.Get(ctx, &weirv1.GetRequest{Ref: ref.Proto()})
		if err != nil {
			return digests, err
		}
		digests[i] = stored.GetResource().GetPlugin().GetSpec().GetDigest()
	}
	return digests, nil
}

// point has a plugin be another module, and waits until that is in force.
func (w *weir) point(ctx context.Context, plugin, digest string) error {
	p := &weirv1.Plugin{Metadata: &weirv1.Metadata{Name: plugin, Tenant: "a"}, Spec: &weirv1.PluginSpec{Digest: digest}}
	done, err := w.api.Apply(ctx, &weirv1.ApplyRequest{Resources: []*weirv1.Resource{resource.Wrap(p)}})
	if err != nil {
		return err
	}
	return w.await(ctx, done.GetRevision())
}

// buildBad builds the plugin that goes wrong.
func buildBad(ctx context.Context, dir string) ([]byte, error) {
	file := filepath.Join(dir, "bad.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	cmd.Dir = filepath.Join("bench", "sandbox", "testdata", "bad")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the plugin that goes wrong: %w: %s", err, out)
	}
	return os.ReadFile(file)
}
