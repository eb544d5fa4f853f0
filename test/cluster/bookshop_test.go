//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/test/hosts"
)

// A shop is the bookshop of the examples, each of its services on a host of its own with
// a sidecar beside it, behind edges. Nobody in it but the sidecars knows of the mesh.
type shop struct {
	c        *cluster
	edges    []*edge
	services map[string]*hosts.Process // books-v1, …
	sidecars map[string]*sidecar
}

// The instances of the shop, in the order in which the example numbers their ports.
var instances = []string{"books-v1", "books-v2", "reviews-v1", "reviews-v2", "orders-v1"}

// openShop opens the bookshop on hosts that are free: two for edges, and one for each of
// the instances that are named.
func (c *cluster) openShop(free hosts.Hosts, open ...string) *shop {
	c.t.Helper()
	s := &shop{c: c, services: map[string]*hosts.Process{}, sidecars: map[string]*sidecar{}}
	c.try("apply", "-f", c.shopManifest())
	for _, host := range free[:2] {
		s.edges = append(s.edges, c.edge(host))
	}
	program := c.buildShop()
	for i, name := range open {
		host := free[2+i]
		s.services[name] = host.Command(c.t.Context(), program, name)
		s.services[name].Start()
		service, version, _ := strings.Cut(name, "-")
		s.sidecars[name] = c.beside(host, name, service, local(name, 9000), local(name, 9200), "--labels", "version="+version)
	}
	return s
}

// local is where an instance has one of its ports.
func local(name string, from int) string {
	for i, known := range instances {
		if known == name {
			return fmt.Sprintf("127.0.0.1:%d", from+1+i)
		}
	}
	return ""
}

// buildShop builds the bookshop's services, which know nothing of Weir.
func (c *cluster) buildShop() (path string) {
	c.t.Helper()
	path = filepath.Join(c.t.TempDir(), "bookshop")
	cmd := exec.Command("go", "build", "-o", path, "./examples/bookshop/cmd/bookshop")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("build the bookshop: %v\n%s", err, out)
	}
	return path
}

// shopManifest is what the example declares of services, who may call them, and Routes
// to them; with a Gateway for the edges of these tests. Its policies have their own tests.
func (c *cluster) shopManifest() (path string) {
	c.t.Helper()
	text, err := os.ReadFile("../../examples/bookshop/bookshop.yaml")
	if err != nil {
		c.t.Fatal(err)
	}
	kept := fmt.Sprintf("apiVersion: weir/v1\nkind: Gateway\nmetadata: {name: public}\nspec: {selector: {zone: test}, listeners: [{name: http, port: %d, protocol: HTTP}]}\n", publicPort)
	for _, document := range strings.Split(string(text), "\n---\n") {
		for _, kind := range []string{"Service", "AccessRule", "Route"} {
			if strings.Contains(document, "\nkind: "+kind+"\n") {
				kept += "---\n" + document + "\n"
			}
		}
	}
	path = filepath.Join(c.t.TempDir(), "shop.yaml")
	if err := os.WriteFile(path, []byte(kept), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// serves waits until every edge serves what takes all services: an order, whose price is
// the books', and reviews, which ask books for the book.
func (s *shop) serves(when string) {
	s.c.t.Helper()
	for _, e := range s.edges {
		await(s.c.t, "the shop at "+e.host.Name+" "+when, func(context.Context) error {
			at := "http://" + e.host.HostPort(publicPort)
			answer, err := e.http.Post(at+"/orders", "application/json", strings.NewReader(`{"book": "1", "quantity": 2}`))
			if err != nil {
				return err
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusCreated {
				return fmt.Errorf("an order: %s", answer.Status)
			}
			if _, err := read(e.http.Get(at + "/books")); err != nil {
				return fmt.Errorf("books: %w", err)
			}
			if got, err := read(e.http.Get(at + "/reviews/1")); err != nil || !strings.Contains(got, "mira") {
				return fmt.Errorf("reviews: %q, %w", got, err)
			}
			return nil
		})
	}
}

// curl asks as the service of an instance would, with its sidecar as http_proxy, and
// returns the status.
func (s *shop) curl(as, url string) string {
	s.c.t.Helper()
	var out strings.Builder
	p := s.sidecars[as].host.Command(s.c.t.Context(), "/usr/bin/env", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30", url)
	p.Env = []string{"PATH=" + os.Getenv("PATH"), "http_proxy=http://" + s.sidecars[as].outbound}
	p.Stdout = &out
	p.Start()
	if err := p.Wait(bounded(s.c.t)); err != nil {
		return err.Error()
	}
	return out.String()
}

// mayCall: who may call whom is as AccessRules say, for curl and for Go's client.
func (s *shop) mayCall() {
	s.c.t.Helper()
	for _, call := range []struct{ as, url, want string }{
		{"orders-v1", "http://books.mesh/books/1", "200"},
		{"reviews-v1", "http://books.mesh/books/1", "200"},
		{"reviews-v1", "http://books.mesh/books", "403"}, // only for one book
		{"reviews-v1", "http://orders.mesh/orders", "403"},
		{"books-v1", "http://reviews.mesh/reviews/1", "200"}, // for which there is no rule
		{"books-v1", "http://nobody.mesh/", "404"},
	} {
		proxied := s.sidecars[call.as].host.HTTPClient()
		proxied.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: s.sidecars[call.as].outbound})
		await(s.c.t, call.as+" to be answered "+call.want+" by "+call.url, func(context.Context) error {
			answer, err := proxied.Get(call.url)
			if err != nil {
				return err
			}
			answer.Body.Close()
			if got := fmt.Sprint(answer.StatusCode); got != call.want {
				return errors.New(answer.Status)
			}
			return nil
		})
		proxied.CloseIdleConnections()
		if _, err := exec.LookPath("curl"); err != nil {
			continue
		}
		if got := s.curl(call.as, call.url); got != call.want {
			s.c.t.Errorf("curl as %s of %s: %s, want %s", call.as, call.url, got, call.want)
		}
	}
	// Who may not call a service at all is refused where it is, who may not do this there.
	for service, at := range map[string][]string{"orders": {"reviews-v1"}, "books": {"books-v1", "books-v2"}} {
		n := 0
		for _, name := range at {
			if there := s.sidecars[name]; there != nil {
				n += s.c.metric(there.host, `weir_access_denied_total\{service="default/`+service+`"\}`)
			}
		}
		if n == 0 {
			s.c.t.Errorf("the sidecars of %v count nobody who was denied %s", at, service)
		}
	}
}

// speaks waits until both an edge and orders call books by a protocol.
func (s *shop) speaks(protocol string) {
	s.c.t.Helper()
	series := `weir_upstream_requests_total\{code="200",protocol="` + protocol + `",service="default/books"\}`
	callers := []*hosts.Host{s.edges[0].host, s.sidecars["orders-v1"].host}
	var before []int
	for _, host := range callers {
		before = append(before, s.c.metric(host, series))
	}
	await(s.c.t, "calls to books by "+protocol, func(context.Context) error {
		s.serves("by " + protocol)
		for i, host := range callers {
			if s.c.metric(host, series) == before[i] {
				return fmt.Errorf("none of %s yet", host.Name)
			}
		}
		return nil
	})
}

// The whole bookshop: three servers, two edges, and services that call each other. UDP
// comes and goes, servers die, services and sidecars are restarted, and strangers knock.
func TestTheBookshop(t *testing.T) {
	open := []string{"books-v1", "reviews-v1", "orders-v1"}
	if *all {
		open = instances
	}
	c := form(t, 3, options{spares: 2 + len(open) + 1})
	s := c.openShop(c.hosts[3:], open...)
	stranger := c.hosts[3+2+len(open)]
	if !*all { // the canary has nobody to go to, where books-v2 is closed
		c.try("apply", "-f", withoutCanary(t))
	}
	s.serves("at first")
	s.mayCall()

	books := s.sidecars["books-v1"]
	s.speaks("h3")
	for _, name := range []string{"books-v1", "books-v2"} {
		if there := s.sidecars[name]; there != nil {
			c.hosts.BlockUDP(there.host.Name)
		}
	}
	s.speaks("h2")
	for _, name := range []string{"books-v1", "books-v2"} {
		if there := s.sidecars[name]; there != nil {
			c.hosts.UnblockUDP(there.host.Name)
		}
	}
	s.speaks("h3")

	c.strangersAreRefused(stranger, books)

	for _, m := range c.all() {
		m.kill()
	}
	s.serves("without servers")
	s.services["orders-v1"].Restart()
	s.services["books-v1"].Restart()
	s.serves("after services were restarted without servers")
	s.sidecars["orders-v1"].process.Restart()
	s.sidecars["orders-v1"].ready()
	books.process.Restart()
	books.ready()
	s.serves("after sidecars were restarted without servers")
	s.mayCall()

	for _, m := range c.all() {
		m.start()
	}
	for _, m := range c.all() {
		m.ready()
	}
	for _, there := range s.sidecars {
		there.awaitInstance("is there", func(i *weirv1.Instance) bool { return i != nil && !i.GetSpec().GetUnhealthy() })
	}
	s.serves("with servers again")
	c.requireSound()
}

// withoutCanary sends all that is for books to their first version.
func withoutCanary(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "route.yaml")
	route := "apiVersion: weir/v1\nkind: Route\nmetadata: {name: books}\nspec:\n  parentRefs: [{name: public}]\n  rules:\n" +
		"  - matches: [{path: {type: PathPrefix, value: /books}}]\n    backendRefs: [{name: books, subset: v1}]\n"
	if err := os.WriteFile(path, []byte(route), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
