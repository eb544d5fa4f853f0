package node

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weirmesh/weir/identity"
	"github.com/weirmesh/weir/internal/freeport"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource"
)

// meshed is a cluster with an edge and services, each with its sidecar.
type meshed struct {
	t       *testing.T
	api     weirv1connect.AdminServiceClient
	servers []string
	gateway string // where the edge takes requests
	td      string
	edge    *running
	cars    map[string]*car
}

// car is a sidecar and the service beside it.
type car struct {
	*running
	cfg     Config
	service *httptest.Server
}

// newMesh starts a server, an edge, and the sidecars of services: "books-1 books".
func newMesh(t *testing.T, cars ...string) *meshed {
	t.Helper()
	node := freeport.Address(t)
	dir := t.TempDir()
	run(t, serverConfig(t, dir, node)).ready()
	m := &meshed{t: t, api: adminAPI(t, dir), servers: []string{node}, cars: map[string]*car{}}
	m.begin(cars...)
	return m
}

// begin starts all but the servers.
func (m *meshed) begin(cars ...string) {
	m.t.Helper()
	cluster, err := m.api.GetStatus(m.t.Context(), &weirv1.GetStatusRequest{})
	if err != nil {
		m.t.Fatal(err)
	}
	m.td, m.gateway = cluster.GetTrustDomain(), freeport.Address(m.t)
	host, port, _ := net.SplitHostPort(m.gateway)
	number, _ := strconv.Atoi(port)
	declared := []*weirv1.Resource{resource.Wrap(&weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "public"}, Spec: &weirv1.GatewaySpec{
		Listeners: []*weirv1.Listener{{Name: "http", Port: uint32(number), Address: host, Protocol: weirv1.Listener_HTTP}},
	}})}
	services := map[string]bool{}
	for _, c := range cars {
		_, service, _ := strings.Cut(c, " ")
		if services[service] {
			continue
		}
		services[service] = true
		declared = append(declared, resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: service}, Spec: &weirv1.ServiceSpec{
			Subsets: []*weirv1.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}, {Name: "v2", Labels: map[string]string{"version": "v2"}}},
		}}), resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: service}, Spec: &weirv1.RouteSpec{
			ParentRefs: []*weirv1.ParentRef{{Name: "public"}}, Hostnames: []string{service + ".example"},
			Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: service}}}},
		}}))
	}
	apply(m.t, m.api, declared...)
	m.edge = run(m.t, Config{Data: m.t.TempDir(), Edge: &EdgeConfig{Name: "e1", Servers: m.servers, Token: joinToken(m.t, m.api), Admin: freeport.Address(m.t)}}).ready()
	for _, c := range cars {
		name, service, _ := strings.Cut(c, " ")
		m.join(name, service, "v1")
	}
}

// join starts a sidecar, and the service beside it.
func (m *meshed) join(name, service, version string) *car {
	m.t.Helper()
	c := &car{service: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Service", name)
		fmt.Fprintf(w, "%s: %s %s for %s", name, r.Method, r.URL.Path, r.Header.Get("X-Forwarded-For"))
	}))}
	m.t.Cleanup(c.service.Close)
	c.cfg = Config{Data: m.t.TempDir(), Sidecar: &SidecarConfig{
		EdgeConfig: EdgeConfig{Name: name, Servers: m.servers, Token: m.token(service), Admin: freeport.Address(m.t), Labels: map[string]string{"version": version}},
		Service:    service, Address: c.service.Listener.Addr().String(), Inbound: freeport.Address(m.t), Outbound: freeport.Address(m.t),
	}}
	c.running = run(m.t, c.cfg).ready()
	m.cars[name] = c
	m.await(name, func(i *weirv1.Instance) bool { return i != nil && !i.GetSpec().GetUnhealthy() })
	return c
}

func (m *meshed) token(service string) string {
	m.t.Helper()
	made, err := m.api.CreateJoinToken(m.t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_SIDECAR, Service: service})
	if err != nil {
		m.t.Fatal(err)
	}
	return made.GetToken()
}

// await waits until an Instance is as it should be; nil: it is not there.
func (m *meshed) await(name string, good func(*weirv1.Instance) bool) {
	m.t.Helper()
	var last *weirv1.Instance
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		list, err := m.api.List(m.t.Context(), &weirv1.ListRequest{Kind: resource.KindInstance})
		if err != nil {
			continue
		}
		last = nil
		for _, r := range list.GetResources() {
			if resource.Of(r).Name == name {
				last = r.GetInstance()
			}
		}
		if good(last) {
			return
		}
	}
	m.t.Fatalf("the instance %s is %v", name, last)
}

func gone(i *weirv1.Instance) bool { return i == nil }

// ask sends a request to an address, for a host.
func (m *meshed) ask(address, method, host, path string) (status int, body string) {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	r.Host, r.Close = host, true
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, _ := bufio.NewReader(answer.Body).ReadString(0)
	return answer.StatusCode, text
}

// from sends a request out by a sidecar.
func (m *meshed) from(name, method, host, path string) (int, string) {
	m.t.Helper()
	return m.ask(m.cars[name].cfg.Sidecar.Outbound, method, host, path)
}

// awaitAnswer asks until the answer is as it should be.
func (m *meshed) awaitAnswer(want int, text string, ask func() (int, string)) {
	m.t.Helper()
	var status int
	var body string
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if status, body = ask(); status == want && strings.Contains(body, text) {
			return
		}
	}
	m.t.Fatalf("the answer is %d %.500q, want %d with %q", status, body, want, text)
}

// counted is how many requests a proxy has sent to a service by a protocol.
func (m *meshed) counted(admin, service, protocol string) (n int) {
	m.t.Helper()
	_, page := get(m.t, "http://"+admin+"/metrics")
	series := regexp.MustCompile(`(?m)^weir_upstream_requests_total\{code="[1-9]\d*",protocol="` + protocol + `",service="default/` + service + `"\} (\d+)`)
	for _, found := range series.FindAllStringSubmatch(page, -1) {
		k, _ := strconv.Atoi(found[1])
		n += k
	}
	return n
}

// The whole way: registered services are reached by the edge and by each other, over
// HTTP/3, and by nobody whom the rules do not name.
func TestMesh(t *testing.T) {
	m := newMesh(t, "books-1 books", "shop-1 shop")
	fromEdge := func() (int, string) { return m.ask(m.gateway, "GET", "books.example", "/v1/list") }
	fromShop := func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/v1/list") }
	m.awaitAnswer(200, "books-1: GET /v1/list for 127.0.0.1", fromEdge)
	m.awaitAnswer(200, "books-1: GET /v1/list", fromShop)
	if n := m.counted(m.cars["shop-1"].cfg.Sidecar.Admin, "books", "h3"); n == 0 {
		t.Error("the sidecar did not speak HTTP/3")
	}
	if status, body := m.from("shop-1", "GET", "nobody.mesh", "/"); status != 404 || !strings.Contains(body, "no_service") {
		t.Errorf("an unknown host is answered %d %s", status, body)
	}

	proxied := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: m.cars["shop-1"].cfg.Sidecar.Outbound})}}
	if answer, err := proxied.Get("http://books.mesh/as-proxy"); err != nil || answer.StatusCode != 200 {
		t.Errorf("as http_proxy: %v, %v", answer, err)
	} else {
		answer.Body.Close()
	}

	// Access.
	apply(t, m.api, resource.Wrap(&weirv1.AccessRule{Metadata: &weirv1.Metadata{Name: "books"}, Spec: &weirv1.AccessRuleSpec{Service: "books",
		Allow: []*weirv1.AccessAllow{{From: []string{"spiffe://" + m.td + "/ns/default/svc/shop"}, Methods: []string{"GET"}, Paths: []string{"/v1/*"}}}}}))
	m.awaitAnswer(403, "access_denied", fromEdge)
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/v1/list", 200}, {"POST", "/v1/list", 403}, {"GET", "/v2", 403}, {"GET", "/v1/../v2", 403}, {"GET", "/v1/a?b=/v2", 200}} {
		if status, body := m.from("shop-1", c.method, "books.mesh", c.path); status != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, status, body, c.want)
		}
	}
	if status, _ := m.from("books-1", "GET", "shop.mesh", "/"); status != 200 {
		t.Errorf("a service without a rule answers %d", status)
	}
	apply(t, m.api, resource.Wrap(&weirv1.AccessRule{Metadata: &weirv1.Metadata{Name: "edges"}, Spec: &weirv1.AccessRuleSpec{Service: "books",
		Allow: []*weirv1.AccessAllow{{From: []string{"spiffe://" + m.td + "/node/edge/*"}}}}}))
	m.awaitAnswer(200, "books-1", fromEdge)
}

// Instances come and go with what they are of.
func TestInstancesComeAndGo(t *testing.T) {
	m := newMesh(t, "books-1 books", "books-2 books", "shop-1 shop")
	who := func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/") }
	m.awaitAnswer(200, "books-1", who)
	m.awaitAnswer(200, "books-2", who)

	m.cars["books-1"].service.Close()
	m.await("books-1", func(i *weirv1.Instance) bool { return i.GetSpec().GetUnhealthy() })
	m.cars["books-2"].stop()
	m.await("books-2", gone)
	m.join("books-3", "books", "v2").stop()
	m.join("books-4", "books", "v1")
	m.awaitAnswer(200, "books-4", who)

	// A Route of the Service decides by what the instances are labelled with.
	m.join("books-5", "books", "v2")
	one := uint32(1)
	apply(t, m.api, resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: "to-v2"}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Kind: "Service", Name: "books"}},
		Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: "books", Subset: "v2", Weight: &one}},
			Filters: []*weirv1.RouteFilter{{Type: weirv1.RouteFilter_RESPONSE_HEADER_MODIFIER, ResponseHeaderModifier: &weirv1.HeaderModifier{Set: []*weirv1.HeaderValue{{Name: "x-by", Value: "route"}}}}}}},
	}}))
	for range 10 {
		if status, body := who(); status != 200 || !strings.Contains(body, "books-5") {
			t.Fatalf("it went to %d %s", status, body)
		}
	}
}

// Policies act on what the mesh sends, by the Route or the Service that they are on.
func TestPoliciesInTheMesh(t *testing.T) {
	m := newMesh(t, "books-1 books", "shop-1 shop")
	shield := func(name, kind, query string) *weirv1.Resource {
		return resource.Wrap(&weirv1.Policy{Metadata: &weirv1.Metadata{Name: name}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: kind, Name: "books"}}, Waf: &weirv1.Firewall{Rules: `SecRule ARGS:` + query + ` "@streq 1" "id:1,phase:1,deny,status:410"`}}})
	}
	asked := func(query string) func() (int, string) {
		return func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/?"+query+"=1") }
	}
	m.awaitAnswer(200, "books-1", asked("old"))
	apply(t, m.api, shield("on-service", "Service", "old"))
	m.awaitAnswer(410, "", asked("old"))
	m.awaitAnswer(200, "books-1", asked("older"))
	apply(t, m.api, resource.Wrap(&weirv1.Route{Metadata: &weirv1.Metadata{Name: "in-mesh"}, Spec: &weirv1.RouteSpec{
		ParentRefs: []*weirv1.ParentRef{{Kind: "Service", Name: "books"}}, Rules: []*weirv1.RouteRule{{BackendRefs: []*weirv1.BackendRef{{Name: "books"}}}},
	}}))
	onRoute := shield("on-route", "Route", "older")
	onRoute.GetPolicy().GetSpec().GetTargetRefs()[0].Name = "in-mesh"
	apply(t, m.api, onRoute)
	m.awaitAnswer(410, "", asked("older"))
	m.awaitAnswer(410, "", asked("old"))
	m.awaitAnswer(200, "books-1", asked("new"))
}

// Calls of gRPC go all the way, with their trailers.
func TestGRPCInTheMesh(t *testing.T) {
	m := newMesh(t, "books-1 books", "shop-1 shop")
	server := grpc.NewServer()
	answers := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, answers)
	answers.SetServingStatus("books", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	apply(t, m.api, resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: "calls"}, Spec: &weirv1.ServiceSpec{Protocol: weirv1.ServiceSpec_HTTP2}}))
	cfg := Config{Data: t.TempDir(), Sidecar: &SidecarConfig{
		EdgeConfig: EdgeConfig{Name: "calls-1", Servers: m.servers, Token: m.token("calls"), Admin: freeport.Address(t)},
		Service:    "calls", Address: listener.Addr().String(), Inbound: freeport.Address(t), Outbound: freeport.Address(t),
	}}
	run(t, cfg).ready()
	m.await("calls-1", func(i *weirv1.Instance) bool { return i != nil })
	client, err := grpc.NewClient("passthrough:///"+m.cars["shop-1"].cfg.Sidecar.Outbound, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("calls.mesh"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var got *grpc_health_v1.HealthCheckResponse
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if got, err = grpc_health_v1.NewHealthClient(client).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "books"}); err == nil {
			break
		}
	}
	if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("answered %v, %v", got, err)
	}
	_, err = grpc_health_v1.NewHealthClient(client).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "nothing"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("a status that is not OK came as %v", err)
	}
}

// A sidecar that stops is sent nothing more before it takes nothing more.
func TestADrainedSidecarFailsNobody(t *testing.T) {
	m := newMesh(t, "books-1 books", "books-2 books", "shop-1 shop")
	m.awaitAnswer(200, "books-2", func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/") })
	var failed, asked atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// POST: nobody may send it again.
				if status, body := m.from("shop-1", "POST", "books.mesh", "/"); status != 200 {
					failed.Add(1)
					t.Logf("%d %s", status, body)
				}
				asked.Add(1)
			}
		})
	}
	for asked.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	m.cars["books-1"].stop()
	for n := asked.Load(); asked.Load() < n+100; {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	load.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
}

// Who is not of the mesh is refused, counted and told from the others in the log.
func TestStrangersAreRefused(t *testing.T) {
	m := newMesh(t, "books-1 books")
	inbound := m.cars["books-1"].cfg.Sidecar.Inbound
	other := newMesh(t, "shop-1 shop")
	foreign, err := identity.Open(filepath.Join(other.cars["shop-1"].cfg.Data, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	posing := foreign.MeshClientTLS("", "h2")
	posing.VerifyConnection = nil
	for name, config := range map[string]*tls.Config{
		"nobody":                {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
		"of another cluster":    posing,
		"speaks HTTP/1.1 alone": {InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
	} {
		c, err := tls.Dial("tcp", inbound, config)
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1)) // TLS 1.3 tells a client afterwards
			c.Close()
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: let in, %v", name, err)
		}
	}
	m.awaitAnswer(200, "weir_mesh_refused_total 3", func() (int, string) {
		return m.ask(m.cars["books-1"].cfg.Sidecar.Admin, "GET", "x", "/metrics")
	})
}

// With every server dead the mesh goes on, and its sidecars restart from disk.
func TestTheMeshOutlivesItsServers(t *testing.T) {
	node, dir := freeport.Address(t), t.TempDir()
	server := run(t, serverConfig(t, dir, node)).ready()
	m := &meshed{t: t, api: adminAPI(t, dir), servers: []string{node}, cars: map[string]*car{}}
	m.begin("books-1 books", "shop-1 shop")
	who := func() (int, string) { return m.from("shop-1", "GET", "books.mesh", "/") }
	m.awaitAnswer(200, "books-1", who)
	server.stop()
	if status, body := who(); status != 200 {
		t.Errorf("without servers: %d %s", status, body)
	}
	for _, name := range []string{"books-1", "shop-1"} {
		c := m.cars[name]
		c.stop()
		c.cfg.Sidecar.Token = ""
		c.running = run(t, c.cfg).ready()
	}
	m.awaitAnswer(200, "books-1", who)
}

func TestASidecarOfAnotherServiceIsRefused(t *testing.T) {
	m := newMesh(t, "books-1 books")
	cfg := m.cars["books-1"].cfg
	other := *cfg.Sidecar
	other.Service, other.Name, other.Token = "shop", "shop-1", m.token("books")
	run(t, Config{Data: t.TempDir(), Sidecar: &other}).failed("not of a sidecar of service shop")
	m.cars["books-1"].stop()
	posing := *cfg.Sidecar
	posing.Service = "shop"
	run(t, Config{Data: cfg.Data, Sidecar: &posing}).failed("not of a sidecar of service shop")
}
