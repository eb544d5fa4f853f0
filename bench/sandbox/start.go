package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/weirmesh/weir/bench/measure"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// weir is a server and an edge with tenants a, b and c. Each has a gateway of its own
// before the same service. They are two processes, since what a server remembers of
// changes, up to a bound, is no part of what running a policy costs.
type weir struct {
	dir          string
	server, edge *measure.Process
	api          weirv1connect.AdminServiceClient
	proxyAdmin   string
	ports        map[string]int
	module       []byte // that of the policy of tenant a
}

func startWeir(ctx context.Context, dir string, s settings) (*weir, error) {
	module, err := os.ReadFile(s.module)
	if err != nil {
		return nil, fmt.Errorf("the module to exchange (make plugins): %w", err)
	}
	w := &weir{dir: dir, module: module}
	if err := w.start(ctx, s); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

func (w *weir) start(ctx context.Context, s settings) error {
	binary, err := measure.WeirBinary()
	if err != nil {
		return err
	}
	var ports [6]int
	for i := range ports {
		if ports[i], err = measure.FreePort(); err != nil {
			return err
		}
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	node, admin := at(0), at(1)
	w.proxyAdmin, w.ports = at(2), map[string]int{"a": ports[3], "b": ports[4], "c": ports[5]}

	data := filepath.Join(w.dir, "server")
	w.server, err = measure.Start(data, nil, binary, "server", "--bootstrap", "--name", "s1", "--data", data,
		"--node", node, "--admin", admin, "--log-level", "error")
	if err != nil {
		return err
	}
	if err := w.server.Until(ctx, w.server.WeirReady); err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	if w.api, err = dial(filepath.Join(data, "admin.env")); err != nil {
		return err
	}
	token, err := w.api.CreateJoinToken(ctx, &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE})
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	data = filepath.Join(w.dir, "edge")
	w.edge, err = measure.Start(data, []string{"WEIR_ACCESS_LOG=off", "WEIR_TOKEN=" + token.GetToken()}, binary, "edge", "--name", "e1", "--data", data,
		"--servers", node, "--proxy-admin", w.proxyAdmin, "--log-level", "error")
	if err != nil {
		return err
	}
	if err := w.edge.Until(ctx, w.edge.WeirReady); err != nil {
		return fmt.Errorf("start an edge: %w", err)
	}
	return w.declareTenants(ctx, s.config)
}

func (w *weir) stop() {
	w.edge.Stop()
	w.server.Stop()
}

// lastWords are what both printed last.
func (w *weir) lastWords() string {
	return "edge: " + w.edge.LastWords() + "; server: " + w.server.LastWords()
}

// dial is a client of the admin API as the file that a server leaves describes it.
func dial(adminEnv string) (weirv1connect.AdminServiceClient, error) {
	text, err := os.ReadFile(adminEnv)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[name] = strings.Trim(value, "'")
		}
	}
	pem, err := os.ReadFile(env["WEIR_CA"])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the server's roots have no certificate")
	}
	client := &http.Client{Transport: &bearer{env["WEIR_TOKEN"], &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}}
	return weirv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(client, "https://"+env["WEIR_ADMIN"]))), nil
}

// bearer shows a token with each request.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}
