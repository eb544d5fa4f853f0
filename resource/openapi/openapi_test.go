package openapi

import (
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

func TestDeclare(t *testing.T) {
	const head = "openapi: 3.0.3\ninfo: {title: Books & Co., version: 1.2.0}\npaths: {}\n"
	for name, c := range map[string]struct {
		text string
		o    Options
		want []string // in what is declared
	}{
		"a server with a path": {
			head + "servers: [{url: 'https://api.example/shop/v1/'}]", Options{},
			[]string{"name: books-co\n", "name: books-co-1-2-0\n", "version: 1.2.0", "address: api.example:443", "hostname: api.example", "value: /shop/v1", "state: PUBLISHED"},
		},
		"a port and variables": {
			head + "servers: [{url: 'http://10.0.0.7:{port}/{stage}', variables: {port: {default: '9001'}, stage: {default: test}}}]", Options{Name: "shop"},
			[]string{"name: shop\n", "address: 10.0.0.7:9001", "value: /test"},
		},
		"a path alone, and where the service is": {
			head + "servers: [{url: /v1}, {url: /v2}]", Options{Upstream: "127.0.0.1:9001", Hostnames: []string{"shop.example"}, Gateway: "internal"},
			[]string{"address: 127.0.0.1:9001", "value: /v1", "value: /v2", "- shop.example", "name: internal"},
		},
		"no server": {head, Options{Upstream: "127.0.0.1:9001", Tenant: "acme"}, []string{"value: /\n", "tenant: acme"}},
		"JSON":      {`{"openapi": "3.1.0", "info": {"title": "x", "version": "v1"}, "servers": [{"url": "http://a"}]}`, Options{}, []string{"name: x-v1\n", "address: a:80"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.o.Gateway == "" {
				c.o.Gateway = "public"
			}
			c.o.State = weirv1.ApiSpec_PUBLISHED
			d, err := Declare(c.text, c.o)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range d.Resources() {
				if bad := resource.Validate(r); len(bad) > 0 {
					t.Errorf("%s: %v", resource.Of(r), bad)
				}
			}
			var b strings.Builder
			if err := manifest.WriteYAML(&b, d.Resources()...); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("there is no %q in\n%s", want, b.String())
				}
			}
		})
	}
}

func TestWhatCannotBeDeclared(t *testing.T) {
	for text, want := range map[string]string{
		"a: [":                                 "read document",
		"kind: Route":                          "no OpenAPI document",
		"openapi: 3.0.3\ninfo: {title: a}":     "info.version is missing",
		"openapi: 3.0.3\ninfo: {version: '1'}": `makes no name`,
		"openapi: 3.0.3\ninfo: {title: a, version: '1'}":                                 "say where the service is",
		"openapi: 3.0.3\ninfo: {title: a, version: '1'}\nservers: [{url: /v1}]":          "say where the service is",
		"openapi: 3.0.3\ninfo: {title: a, version: '1'}\nservers: [{url: 'http://{x}'}]": `servers[0].url: "http://{x}" is no URL`,
		"openapi: 3.0.3\ninfo: {title: a, version: '1'}\nservers: 7":                     "read document",
	} {
		if _, err := Declare(text, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
}

func FuzzDeclare(f *testing.F) {
	f.Add("openapi: 3.0.3\ninfo: {title: a, version: '1'}\nservers: [{url: 'https://a:1/b'}]")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Declare(text, Options{Gateway: "g"})
		if err != nil {
			return
		}
		if d.Service.GetSpec().GetEndpoints() == nil || d.Api.GetSpec().GetVersion() == "" {
			t.Errorf("%q became %v", text, d)
		}
	})
}
