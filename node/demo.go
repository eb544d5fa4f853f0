package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/weirmesh/weir/examples/bookshop"
	"github.com/weirmesh/weir/examples/plugins"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource/manifest"
)

// demoPlugins are what the bookshop's policies use.
var demoPlugins = [...]string{"apikey", "ratelimit", "transform"}

// startDemo opens the bookshop and declares what stands before it.
func (p *process) startDemo(api weirv1connect.AdminServiceClient) error {
	items, err := manifest.Parse("bookshop.yaml", []byte(bookshop.Manifest))
	if err != nil {
		return fmt.Errorf("start demo: %w", err)
	}
	p.run("bookshop", func(ctx context.Context) error { return bookshop.Run(ctx, p.log.With("part", "bookshop")) })
	for _, name := range demoPlugins {
		module, err := plugins.Module(name)
		if err != nil {
			return fmt.Errorf("start demo: %w", err)
		}
		if _, err := api.PushPlugin(p.ctx, &weirv1.PushPluginRequest{Name: name, Module: module}); err != nil {
			return fmt.Errorf("start demo: push plugin %s: %w", name, err)
		}
	}
	var resources []*weirv1.Resource
	for _, item := range items {
		if spec := item.Resource.GetContract().GetSpec(); spec.GetOpenapiFile() != "" {
			if spec.Openapi, err = bookshop.Document(spec.GetOpenapiFile()); err != nil {
				return fmt.Errorf("start demo: %w", err)
			}
			spec.OpenapiFile = ""
		}
		resources = append(resources, item.Resource)
	}
	if err := declare(p.ctx, api, resources...); err != nil {
		return fmt.Errorf("start demo: %w", err)
	}
	return nil
}

// demoHints are what to try, each line as it can be typed.
func demoHints(admin, proxyAdmin string) string {
	var b strings.Builder
	line := func(command, meaning string) { fmt.Fprintf(&b, "  %-86s # %s\n", command, meaning) }
	b.WriteString("\nThe bookshop is open at http://127.0.0.1:8080. Try:\n\n")
	line("curl -i http://127.0.0.1:8080/books", "one in ten is answered by version 2")
	line("curl -i http://127.0.0.1:8080/orders", "401: orders want a key")
	line("curl -i -H 'x-api-key: demo-key' http://127.0.0.1:8080/orders", "200, ten times a minute")
	line("for i in $(seq 12); do curl -s -o /dev/null -w '%{http_code}\\n' -H 'x-api-key: demo-key' http://127.0.0.1:8080/orders; done", "then 429")
	environment := ""
	if admin != "127.0.0.1:7401" {
		environment = "WEIR_ADMIN=" + admin + " "
	}
	line("KEY=$("+environment+"weir key create --app demo --wait -o name)", "a key of its own for a program of another shop's")
	line(`curl -i -H "x-api-key: $KEY" http://127.0.0.1:8080/partners/v1/books`, "200, and what is left of ten calls a minute")
	line(`curl -i -H "x-api-key: $KEY" http://127.0.0.1:8080/partners/v1/books/x`, "400: the contract has numbers there")
	line("curl -i -x http://127.0.0.1:9205 http://books.mesh/books/1", "200: orders asks books, by the sidecar beside it")
	line("curl -i -x http://127.0.0.1:9203 http://orders.mesh/orders", "403: reviews may not call orders")
	line(`curl -s http://`+demoSidecarAdmin+`/metrics | grep 'protocol="h3"'`, "how the sidecar of orders called books")
	line(environment+"weir get instances", "what the sidecars have registered")
	line(environment+"weir limits status", "who has used how much of which limit")
	line(environment+"weir usage --app demo", "what the partner has called")
	line(environment+"weir get", "what is declared")
	line(environment+"weir status", "the server, the edge, and the revision that it serves")
	if proxyAdmin != "" {
		line("curl -s http://"+proxyAdmin+"/metrics | grep weir_requests_total", "what was counted")
	}
	b.WriteString("\n")
	return b.String()
}
