//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/hosts"
)

const (
	publicPort     = 8080
	proxyAdminPort = 7410
)

// An edge is a proxy, on a host of its own, of a cluster.
type edge struct {
	c       *cluster
	host    *hosts.Host
	data    string
	process *hosts.Process
	http    *http.Client
}

// edge starts an edge on a spare host; it knows all members.
func (c *cluster) edge(host *hosts.Host) *edge {
	c.t.Helper()
	return c.edgeOf(weir(c.t), host)
}

// edgeOf starts one of another build.
func (c *cluster) edgeOf(program string, host *hosts.Host) *edge {
	c.t.Helper()
	e := &edge{c: c, host: host, data: c.t.TempDir()}
	e.process = host.Command(c.t.Context(), program, "edge", "--name", "edge-"+host.Name, "--data", e.data,
		"--servers", addresses(c.all()), "--token", c.joinToken("edge"), "--labels", "zone=test", "--access-log", "off",
		"--proxy-admin", host.HostPort(proxyAdminPort))
	e.process.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	e.http = c.outside.HTTPClient()
	e.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	e.http.Timeout = callTime
	e.process.Start()
	e.ready()
	return e
}

func (e *edge) ready() {
	e.c.t.Helper()
	if err := e.process.WaitOutput(bounded(e.c.t), "weir: ready"); err != nil {
		e.c.t.Fatal(err)
	}
}

// declare has edges answer requests with a redirection to a host of that name.
func (c *cluster) declare(answer string) {
	c.t.Helper()
	resources := []*weirv1.Resource{
		resource.Wrap(&weirv1.Gateway{
			Metadata: &weirv1.Metadata{Name: "public"},
			Spec: &weirv1.GatewaySpec{Selector: map[string]string{"zone": "test"},
				Listeners: []*weirv1.Listener{{Name: "http", Port: publicPort, Protocol: weirv1.Listener_HTTP}}},
		}),
		resource.Wrap(&weirv1.Route{
			Metadata: &weirv1.Metadata{Name: "answer"},
			Spec: &weirv1.RouteSpec{
				ParentRefs: []*weirv1.ParentRef{{Name: "public"}},
				Rules: []*weirv1.RouteRule{{Filters: []*weirv1.RouteFilter{
					{RequestRedirect: &weirv1.RequestRedirect{Hostname: answer}}}}},
			},
		}),
	}
	await(c.t, "the declaration of "+answer, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		_, err := c.leader().client.Apply(ctx, &weirv1.ApplyRequest{Resources: resources})
		return err
	})
}

// serves waits until the edge answers as it was declared.
func (e *edge) serves(answer string) {
	e.c.t.Helper()
	await(e.c.t, "the edge to serve "+answer, func(context.Context) error { return e.try(answer) })
}

func (e *edge) try(answer string) error {
	response, err := e.http.Get("http://" + e.host.HostPort(publicPort))
	if err != nil {
		return err
	}
	response.Body.Close()
	want := fmt.Sprintf("http://%s:%d/", answer, publicPort)
	if got := response.Header.Get("Location"); response.StatusCode != http.StatusFound || got != want {
		return fmt.Errorf("it answers %s to %q, want %q", response.Status, got, want)
	}
	return nil
}

// server is the member that the edge is connected to, as it says itself: each member
// knows of the proxies of all.
func (e *edge) server() (found *member) {
	e.c.t.Helper()
	await(e.c.t, "the edge to be connected to a server", func(context.Context) error {
		found = nil
		for line := range strings.Lines(e.process.Output()) {
			for _, m := range e.c.running() {
				if strings.Contains(line, "configuration streams") && strings.Contains(line, "server="+m.address()+" ") {
					found = m
				}
			}
		}
		if found == nil {
			return errors.New("it says of no member that it streams")
		}
		return nil
	})
	return found
}

func TestAnEdgeMovesToAnotherServer(t *testing.T) {
	c := form(t, 3, options{spares: 1})
	c.declare("one.example")
	e := c.edge(c.hosts[3])
	e.serves("one.example")
	load := c.load()
	load.goesOn()

	lost := e.server()
	lost.kill()
	load.goesOn()
	c.declare("two.example")
	e.serves("two.example") // which only another server can have told

	lost.restart()
	c.require(load)
}

func TestAnEdgeStartsWithEveryServerDead(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 1})
	load := c.load()
	c.declare("one.example")
	e := c.edge(c.hosts[3])
	e.serves("one.example")
	load.goesOn()

	for _, m := range c.all() {
		m.kill()
	}
	e.process.Restart()
	e.ready()
	e.serves("one.example")

	for _, m := range c.all() {
		m.start()
	}
	for _, m := range c.all() {
		m.ready()
	}
	c.declare("two.example")
	e.serves("two.example")
	load.goesOn()
	c.require(load)
}
