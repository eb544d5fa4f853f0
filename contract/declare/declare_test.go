package declare_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/contract"
	"github.com/weirmesh/weir/contract/declare"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

func document(title, servers string) []byte {
	return fmt.Appendf(nil, "openapi: 3.1.0\ninfo: {title: %q, version: 2.1.0}\nservers: %s\npaths:\n  /books:\n    get: {responses: {\"200\": {description: all}}}\n", title, servers)
}

// say is what was made, in a line: from where to where.
func say(made []*weirv1.Resource) string {
	var line []string
	for _, r := range made {
		switch {
		case r.GetApi() != nil:
			line = append(line, r.GetApi().GetMetadata().GetName(), r.GetApi().GetSpec().GetVersion())
		case r.GetRoute() != nil:
			rule := r.GetRoute().GetSpec().GetRules()[0]
			line = append(line, rule.GetMatches()[0].GetPath().GetValue())
			for _, f := range rule.GetFilters() {
				line = append(line, "as", f.GetUrlRewrite().GetHostname()+f.GetUrlRewrite().GetPath().GetReplacePrefixMatch())
			}
		case r.GetService() != nil:
			spec := r.GetService().GetSpec()
			line = append(line, "at", spec.GetEndpoints()[0].GetAddress())
			if spec.GetTls() != nil {
				line = append(line, "by TLS")
			}
		}
	}
	return strings.Join(line, " ")
}

// What is made of a document, or what it lacks.
func TestResources(t *testing.T) {
	for name, c := range map[string]struct {
		title, servers string
		o              declare.Options
		want, err      string
	}{
		"a server":              {servers: `[{url: "https://api.example/v1/"}]`, want: "book-shop 2.1.0 /v1 as api.example at api.example:443 by TLS"},
		"at an address":         {servers: `[{url: "http://10.0.0.1:9001"}]`, want: "book-shop 2.1.0 / at 10.0.0.1:9001"},
		"of IPv6":               {servers: `[{url: "http://[fd00::1]/v1"}]`, want: "book-shop 2.1.0 /v1 at [fd00::1]:80"},
		"with variables":        {servers: `[{url: "https://{where}.example:{port}/v1", variables: {where: {default: eu}, port: {default: "8443"}}}]`, want: "book-shop 2.1.0 /v1 as eu.example at eu.example:8443 by TLS"},
		"the same twice":        {servers: `[{url: "http://10.0.0.1"}, {url: "http://10.0.0.1"}]`, want: "book-shop 2.1.0 / at 10.0.0.1:80"},
		"one of them whole":     {servers: `[{url: /v1}, {url: "http://10.0.0.1/v1"}]`, want: "book-shop 2.1.0 /v1 at 10.0.0.1:80"},
		"a name of one's own":   {servers: `[{url: "http://10.0.0.1"}]`, o: declare.Options{Name: "books"}, want: "books 2.1.0 / at 10.0.0.1:80"},
		"none":                  {servers: `[]`, err: "the document's servers name no host"},
		"only a path":           {servers: `[{url: /v1}]`, err: "the document's servers name no host"},
		"a path, and where":     {servers: `[{url: /v1}]`, o: declare.Options{Server: "http://10.0.0.1"}, want: "book-shop 2.1.0 /v1 at 10.0.0.1:80"},
		"somewhere else":        {servers: `[{url: "https://api.example/v1"}]`, o: declare.Options{Server: "http://10.0.0.1"}, want: "book-shop 2.1.0 /v1 at 10.0.0.1:80"},
		"by another path":       {servers: `[{url: "https://api.example/v1"}]`, o: declare.Options{Server: "http://10.0.0.1/books"}, want: "book-shop 2.1.0 /v1 as /books at 10.0.0.1:80"},
		"at the root":           {servers: `[{url: "https://api.example/v1"}]`, o: declare.Options{Server: "http://10.0.0.1/"}, want: "book-shop 2.1.0 /v1 as / at 10.0.0.1:80"},
		"several":               {servers: `[{url: "https://api.example/v1"}, {url: "https://test.example/v1"}]`, err: "choose one of https://api.example/v1, https://test.example/v1"},
		"several, one chosen":   {servers: `[{url: "https://api.example/v1"}, {url: "https://test.example/v2"}]`, o: declare.Options{Server: "https://test.example/v2"}, want: "book-shop 2.1.0 /v2 as test.example at test.example:443 by TLS"},
		"several, another":      {servers: `[{url: "https://api.example/v1"}, {url: "https://test.example/v2"}]`, o: declare.Options{Server: "http://10.0.0.1"}, err: "different paths (/v1, /v2)"},
		"of another protocol":   {servers: `[{url: "ws://api.example"}]`, err: "neither http nor https"},
		"with a query":          {servers: `[{url: "http://api.example/?a=b"}]`, err: "more than a host and a path"},
		"no URL":                {servers: `[{url: /}]`, o: declare.Options{Server: "10.0.0.1:80"}, err: "is no URL such as"},
		"a title without words": {title: "本", servers: `[{url: "http://10.0.0.1"}]`, err: `info.title "本" makes no name`},
		"a long title":          {title: strings.Repeat("a", 62) + " book", servers: `[{url: "http://10.0.0.1"}]`, want: strings.Repeat("a", 62) + " 2.1.0 / at 10.0.0.1:80"},
		"a wrong name":          {servers: `[{url: "http://10.0.0.1"}]`, o: declare.Options{Name: "A b"}, err: "metadata.name"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Gateway = "public"
			if c.title == "" {
				c.title = "Book: shop!"
			}
			made, err := declare.Resources(document(c.title, c.servers), c.o)
			switch {
			case c.err != "":
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, %v", say(made), err)
				}
			case err != nil || say(made) != c.want || len(made) != 4:
				t.Errorf("got %q, %v, want %q", say(made), err, c.want)
			}
		})
	}
}

// A document that is wrong is refused with its lines, as when it is applied.
func TestWrongDocuments(t *testing.T) {
	_, err := declare.Resources([]byte("openapi: 3.1.0\ninfo: {title: Books}\npaths: {}\n"), declare.Options{})
	var problems contract.Problems
	if !errors.As(err, &problems) || problems[0].Line != 2 {
		t.Errorf("got %v", err)
	}
	if _, err := declare.Resources([]byte("swagger: '2.0'\n"), declare.Options{}); !errors.As(err, &problems) {
		t.Errorf("got %v", err)
	}
}

// FuzzResources: whatever a document says, what is made of it is valid or refused.
func FuzzResources(f *testing.F) {
	f.Add(document("Books", `[{url: "https://{where}.example/v1", variables: {where: {default: eu}}}]`), "")
	f.Add(document("Books", `[{url: "/v1%2f"}, {url: "http://[::1"}]`), "http://10.0.0.1:9001/a b")
	f.Fuzz(func(t *testing.T, document []byte, server string) {
		made, err := declare.Resources(document, declare.Options{Gateway: "public", Server: server})
		if err != nil {
			return
		}
		for _, r := range made {
			if v := resource.Validate(r); len(v) > 0 {
				t.Errorf("%s is made and is wrong: %v", resource.Of(r), v)
			}
		}
	})
}
