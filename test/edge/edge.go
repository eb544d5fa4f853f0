// Package edge runs an edge inside a test: a proxy as nodes run it, with one
// gateway, on a free port of the loopback.
//
//	e := edge.Start(t, edge.Service("s", upstream), edge.Route("r", "/", "s"))
//	http.Get("http://" + e.Addr + "/")
package edge

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// Patience bounds every wait of a test, so that what hangs fails.
const Patience = 2 * time.Minute

// Edge is an edge that runs until its test ends.
type Edge struct {
	*proxy.Proxy
	Addr string // of its listener, for HTTP in the clear

	t        testing.TB
	revision uint64
}

// Start starts one with these resources.
func Start(t testing.TB, resources ...resource.Message) *Edge {
	t.Helper()
	return StartWith(t, func(*proxy.Config) {}, resources...)
}

// StartWith starts one whose configuration is changed before.
func StartWith(t testing.TB, change func(*proxy.Config), resources ...resource.Message) *Edge {
	t.Helper()
	e := &Edge{t: t}
	cfg := proxy.Config{
		Metrics: telemetry.NewMetrics("test"),
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
		Listen: func(network, _ string) (net.Listener, error) {
			l, err := net.Listen(network, "127.0.0.1:0")
			if err == nil {
				e.Addr = l.Addr().String()
			}
			return l, err
		},
		ClientHalfClosed: 2 * time.Minute, // tests end what they say so, and have time
	}
	change(&cfg)
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Proxy = p
	t.Cleanup(func() { e.Stop() })
	gateway := &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: 80, Protocol: weirv1.Listener_HTTP}}}}
	e.Apply(append([]resource.Message{gateway}, resources...)...)
	return e
}

// Stop drains the edge. It may be called before the test ends.
func (e *Edge) Stop() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := e.Shutdown(ctx); err != nil {
		e.t.Errorf("shut down the edge: %v", err)
	}
}

// Apply brings resources into force.
func (e *Edge) Apply(resources ...resource.Message) {
	e.t.Helper()
	e.revision++
	u := proxy.Update{Revision: e.revision}
	for _, r := range resources {
		u.Puts = append(u.Puts, resource.Wrap(r))
	}
	if err := e.Update(context.Background(), u); err != nil {
		e.t.Fatal(err)
	}
}

// Service declares a service with these endpoints.
func Service(name string, addresses ...string) *weirv1.Service {
	s := &weirv1.Service{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.ServiceSpec{}}
	for _, a := range addresses {
		s.Spec.Endpoints = append(s.Spec.Endpoints, &weirv1.Endpoint{Address: a})
	}
	return s
}

// Route declares a route of one rule, by a prefix of the path.
func Route(name, prefix, service string) *weirv1.Route {
	return &weirv1.Route{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Name: "public"}},
		Rules: []*weirv1.RouteRule{{
			Matches:     []*weirv1.RouteMatch{{Path: &weirv1.PathMatch{Type: weirv1.PathMatch_PATH_PREFIX, Value: prefix}}},
			BackendRefs: []*weirv1.BackendRef{{Name: service}},
		}}}}
}
