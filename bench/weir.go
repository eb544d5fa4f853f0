package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weirmesh/weir/bench/measure"
)

// The rows of Weir.
const (
	weirCatchAll  = "Weir catch-all"
	weirTransform = "Weir transform"
	weirChain     = "Weir 5 policies"
	weirFewHosts  = "Weir 10 hosts"
	weirManyHosts = "Weir 10000 hosts"
	weirTLS       = "Weir TLS"
	weirHTTP2     = "Weir HTTP/2"
	weirHTTP3     = "Weir HTTP/3"
	weirGRPC      = "Weir gRPC"
	weirKeyed     = "Weir key, limit"
)

// weir is a running `weir dev` and the way to declare something there.
type weir struct {
	binary string
	node   string
	admin  string
	place  place
	hosts  int
}

// startWeir starts `weir dev` on free ports and declares what the row wants.
func startWeir(declare func(context.Context, *weir) error) func(context.Context, *contender, place) error {
	return func(ctx context.Context, c *contender, p place) error {
		w := &weir{place: p, hosts: c.hosts}
		var err error
		if w.binary, err = measure.WeirBinary(); err != nil {
			return err
		}
		if err := w.start(ctx, c); err != nil {
			return err
		}
		if err := w.apply(ctx, gatewayAndService); err != nil {
			return err
		}
		return declare(ctx, w)
	}
}

func (w *weir) start(ctx context.Context, c *contender) error {
	var ports [4]string
	for i := range ports {
		port, err := measure.FreePort()
		if err != nil {
			return err
		}
		ports[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	w.node, w.admin, c.admin = ports[0], ports[1], ports[3]
	var err error
	c.process, err = measure.Start(w.place.dir, []string{"WEIR_ACCESS_LOG=off"}, w.binary, "dev", "--data", filepath.Join(w.place.dir, "data"),
		"--node", ports[0], "--admin", ports[1], "--portal", ports[2], "--proxy-admin", ports[3],
		// By default half of the files, for which the services are; here they need few.
		"--max-connections", strconv.Itoa(idleConnections+1000))
	if err != nil {
		return err
	}
	return c.process.Until(ctx, c.process.WeirReady)
}

// cli runs a verb of the CLI.
func (w *weir) cli(ctx context.Context, stdin string, args ...string) error {
	return w.cliTo(ctx, io.Discard, stdin, args...)
}

// cliTo takes what it prints for programs.
func (w *weir) cliTo(ctx context.Context, stdout io.Writer, stdin string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Env = append(os.Environ(), "WEIR_ADMIN="+w.admin)
	cmd.Stdin = strings.NewReader(stdin)
	var complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("weir %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

func (w *weir) apply(ctx context.Context, text string) error {
	text = strings.NewReplacer("{PORT}", fmt.Sprint(w.place.port), "{UPSTREAM}", w.place.upstream).Replace(text)
	return w.cli(ctx, text, "apply", "--wait", "-f", "-")
}

const gatewayAndService = `
apiVersion: weir/v1
kind: Gateway
metadata: {name: public}
spec: {listeners: [{name: http, port: {PORT}, address: 127.0.0.1, protocol: HTTP}]}
---
apiVersion: weir/v1
kind: Service
metadata: {name: books}
spec: {protocol: HTTP, endpoints: [{address: "{UPSTREAM}"}]}
`

const catchAllRoute = `
---
apiVersion: weir/v1
kind: Route
metadata: {name: all}
spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: books}]}]}
`

func catchAll(ctx context.Context, w *weir) error { return w.apply(ctx, catchAllRoute) }

// secure declares something behind a listener of TLS.
func secure(routes string) func(context.Context, *weir) error {
	return func(ctx context.Context, w *weir) error {
		return w.apply(ctx, `
---
apiVersion: weir/v1
kind: Certificate
metadata: {name: bench}
spec: {hostnames: [`+benchHost+`], selfSigned: {}}
---
apiVersion: weir/v1
kind: Gateway
metadata: {name: public}
spec: {listeners: [{name: https, port: {PORT}, address: 127.0.0.1, protocol: HTTPS, tls: {certificateRefs: [{name: bench}]}}]}
`+routes)
	}
}

// calls is the catch-all to a service of gRPC.
func calls(ctx context.Context, w *weir) error {
	return w.apply(ctx, `
---
apiVersion: weir/v1
kind: Service
metadata: {name: books}
spec: {protocol: HTTP2, endpoints: [{address: "{UPSTREAM}"}]}
`+catchAllRoute)
}

// consumers is the catch-all as an Api that asks for a key, with an exact limit that is
// not reached; every answer is counted.
func consumers(ctx context.Context, w *weir) error {
	return w.apply(ctx, catchAllRoute+fmt.Sprintf(`
---
apiVersion: weir/v1
kind: Api
metadata: {name: all}
spec: {version: v1, state: PUBLISHED, targetRefs: [{name: all}], authentication: {apiKey: {}}}
---
apiVersion: weir/v1
kind: Plan
metadata: {name: most}
spec: {apis: [all], limits: [{name: day, requests: 1000000000000, window: 86400s, exact: true}]}
---
apiVersion: weir/v1
kind: App
metadata: {name: bench}
spec: {organization: bench}
---
apiVersion: weir/v1
kind: Subscription
metadata: {name: bench}
spec: {app: bench, plan: most}
---
apiVersion: weir/v1
kind: Credential
metadata: {name: bench}
spec: {app: bench, sha256: %x}
`, sha256.Sum256([]byte(benchKey))))
}

// policies is the catch-all with a chain of so many policies, each the standard policy
// that changes headers: it sets one of the request and one of the response.
func policies(n int) func(context.Context, *weir) error {
	return func(ctx context.Context, w *weir) error {
		module := filepath.Join("examples", "plugins", "wasm", "standard.wasm")
		if _, err := os.Stat(module); err != nil {
			return errors.New("the standard policies are not built (make plugins)")
		}
		if err := w.cli(ctx, "", "plugin", "push", "transform", module); err != nil {
			return err
		}
		text := catchAllRoute
		for i := range n {
			text += fmt.Sprintf(`
---
apiVersion: weir/v1
kind: Policy
metadata: {name: stamp-%[1]d}
spec:
  targetRefs: [{kind: Route, name: all}]
  plugin: transform
  config: {request: {set: {x-stamped-%[1]d: "yes"}}, response: {set: {x-served-by-%[1]d: weir}}}
`, i)
		}
		return w.apply(ctx, text)
	}
}

// manyHosts is a route for each host, declared some hundreds at a time.
func manyHosts(ctx context.Context, w *weir) error {
	const batch = 500
	for from := 0; from < w.hosts; from += batch {
		var text strings.Builder
		for i := from; i < min(from+batch, w.hosts); i++ {
			fmt.Fprintf(&text, `
---
apiVersion: weir/v1
kind: Route
metadata: {name: host-%d}
spec: {parentRefs: [{name: public}], hostnames: [%s], rules: [{backendRefs: [{name: books}]}]}
`, i, hostName(i))
		}
		if err := w.apply(ctx, text.String()); err != nil {
			return err
		}
	}
	return nil
}

// saveProfile fetches a CPU profile from a proxy's own port.
func saveProfile(ctx context.Context, admin string, seconds int, file string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, seconds)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, profile, 0o644)
}
