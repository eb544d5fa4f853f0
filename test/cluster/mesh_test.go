//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/test/hosts"
)

const (
	inboundPort  = 7443
	outboundPort = 7480
	servicePort  = 9001
)

// A sidecar is a proxy beside a service, on a host of its own.
type sidecar struct {
	c        *cluster
	name     string
	host     *hosts.Host
	outbound string // where the service calls others
	data     string
	process  *hosts.Process
	http     *http.Client // of whoever runs on that host
}

// sidecar starts a service, and a sidecar beside it.
func (c *cluster) sidecar(host *hosts.Host, name, service string, more ...string) *sidecar {
	c.t.Helper()
	listener, err := host.Listen(c.t.Context(), "tcp", host.HostPort(servicePort))
	if err != nil {
		c.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	c.t.Cleanup(func() { server.Close(); <-done })
	return c.beside(host, name, service, host.HostPort(servicePort), host.HostPort(outboundPort), more...)
}

// beside starts a sidecar for a service that is there.
func (c *cluster) beside(host *hosts.Host, name, service, address, outbound string, more ...string) *sidecar {
	c.t.Helper()
	s := &sidecar{c: c, name: name, host: host, outbound: outbound, data: c.t.TempDir(), http: host.HTTPClient()}
	s.http.Timeout = callTime
	args := []string{"sidecar", "--name", name, "--service", service, "--address", address,
		"--servers", addresses(c.all()), "--token", c.joinToken("sidecar", "--service", service), "--data", s.data, "--inbound", fmt.Sprintf(":%d", inboundPort),
		"--outbound", outbound, "--proxy-admin", host.HostPort(proxyAdminPort), "--access-log", "off"}
	s.process = host.Command(c.t.Context(), weir(c.t), append(args, more...)...)
	s.process.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	s.process.Start()
	s.ready()
	s.awaitInstance("is there", func(i *weirv1.Instance) bool { return i != nil && !i.GetSpec().GetUnhealthy() })
	return s
}

func (s *sidecar) ready() {
	s.c.t.Helper()
	if err := s.process.WaitOutput(bounded(s.c.t), "weir: ready"); err != nil {
		s.c.t.Fatal(err)
	}
}

// instance is the sidecar's, as one of the members knows it; nil: it is not there.
func (s *sidecar) instance(ctx context.Context) (*weirv1.Instance, error) {
	var errs []error
	for _, m := range s.c.running() {
		list, err := m.client.List(ctx, &weirv1.ListRequest{Kind: resource.KindInstance})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, r := range list.GetResources() {
			if resource.Of(r).Name == s.name {
				return r.GetInstance(), nil
			}
		}
		return nil, nil
	}
	return nil, errors.Join(errs...)
}

func (s *sidecar) awaitInstance(what string, good func(*weirv1.Instance) bool) {
	s.c.t.Helper()
	await(s.c.t, "the instance "+s.name+" "+what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		i, err := s.instance(ctx)
		if err == nil && !good(i) {
			err = fmt.Errorf("it is %v", i)
		}
		return err
	})
}

// call has the service beside the sidecar call another.
func (s *sidecar) call(service string) (string, error) {
	r, err := http.NewRequestWithContext(s.c.t.Context(), "GET", "http://"+s.outbound+"/", nil)
	if err != nil {
		return "", err
	}
	r.Host = service + ".mesh"
	return read(s.http.Do(r))
}

func read(answer *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// awaitCall waits until a call is answered by an instance.
func (s *sidecar) awaitCall(service, by string) {
	s.c.t.Helper()
	await(s.c.t, s.name+" to be answered by "+by, func(context.Context) error {
		got, err := s.call(service)
		if err == nil && got != by {
			err = fmt.Errorf("it is answered by %s", got)
		}
		return err
	})
}

// awaitProtocol calls until calls go by a protocol.
func (s *sidecar) awaitProtocol(service, protocol string) {
	s.c.t.Helper()
	before := s.counted(service, protocol)
	await(s.c.t, "calls to "+service+" by "+protocol, func(context.Context) error {
		if _, err := s.call(service); err != nil {
			return err
		}
		if s.counted(service, protocol) == before {
			return errors.New("not yet")
		}
		return nil
	})
}

// counted is how many calls were answered by a protocol.
func (s *sidecar) counted(service, protocol string) int {
	s.c.t.Helper()
	return s.c.metric(s.host, `weir_upstream_requests_total\{code="[1-9]\d*",protocol="`+protocol+`",service="default/`+service+`"\}`)
}

// metric is what the proxy on a host counts, over all series that match.
func (c *cluster) metric(host *hosts.Host, pattern string) (n int) {
	c.t.Helper()
	client := host.HTTPClient()
	defer client.CloseIdleConnections()
	page, err := read(client.Get("http://" + host.HostPort(proxyAdminPort) + "/metrics"))
	if err != nil {
		c.t.Fatal(err)
	}
	series := regexp.MustCompile(`(?m)^` + pattern + ` (\d+)`)
	for _, found := range series.FindAllStringSubmatch(page, -1) {
		k, _ := strconv.Atoi(found[1])
		n += k
	}
	return n
}

// declareServices declares those that sidecars speak for.
func (c *cluster) declareServices(names ...string) {
	c.t.Helper()
	var services []*weirv1.Resource
	for _, name := range names {
		services = append(services, resource.Wrap(&weirv1.Service{Metadata: &weirv1.Metadata{Name: name}, Spec: new(weirv1.ServiceSpec)}))
	}
	await(c.t, "the declaration of services", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		_, err := c.leader().client.Apply(ctx, &weirv1.ApplyRequest{Resources: services})
		return err
	})
}

// Where UDP is blocked the mesh goes by TCP, and by UDP again once it is not.
func TestTheMeshWithoutUDP(t *testing.T) {
	c := form(t, 1, options{spares: 2})
	c.declareServices("books", "shop")
	c.sidecar(c.hosts[1], "books-1", "books")
	shop := c.sidecar(c.hosts[2], "shop-1", "shop")
	shop.awaitCall("books", "books-1")
	shop.awaitProtocol("books", "h3")
	c.hosts.BlockUDP(c.hosts[1].Name)
	shop.awaitProtocol("books", "h2")
	c.hosts.UnblockUDP(c.hosts[1].Name)
	shop.awaitProtocol("books", "h3")
}

// A sidecar that dies is withdrawn; servers that die withdraw nobody who lives.
func TestTheDeadAreWithdrawnAndTheLivingAreNot(t *testing.T) {
	inFull(t)
	c := form(t, 3, options{spares: 3})
	c.declareServices("books", "shop")
	first := c.sidecar(c.hosts[3], "books-1", "books")
	shop := c.sidecar(c.hosts[4], "shop-1", "shop")
	shop.awaitCall("books", "books-1")
	born, err := first.instance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same := func() {
		t.Helper()
		first.awaitInstance("stays", func(i *weirv1.Instance) bool { return i != nil })
		i, err := first.instance(t.Context())
		if err == nil && i.GetMetadata().GetCreateRevision() != born.GetMetadata().GetCreateRevision() {
			t.Errorf("it was withdrawn meanwhile: %v, then %v", born, i)
		}
	}
	// lives calls for longer than it takes to be taken for dead.
	lives := func() {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if by, err := shop.call("books"); err != nil || by != "books-1" {
				t.Fatalf("it is answered by %q, %v", by, err)
			}
		}
		same()
	}
	for range 2 { // the leader, whoever is connected to it
		lost := c.leader()
		lost.kill()
		lives()
		lost.restart()
		c.awaitVoters()
	}
	for _, m := range c.all() {
		m.kill()
	}
	if by, err := shop.call("books"); err != nil || by != "books-1" {
		t.Fatalf("without servers it is answered by %q, %v", by, err)
	}
	first.process.Restart()
	first.ready()
	shop.awaitCall("books", "books-1")
	for _, m := range c.all() {
		m.start()
	}
	for _, m := range c.all() {
		m.ready()
	}
	lives()

	second := c.sidecar(c.hosts[5], "books-2", "books")
	shop.awaitCall("books", "books-2")
	second.process.Kill9()
	died := time.Now()
	second.awaitInstance("is gone", func(i *weirv1.Instance) bool { return i == nil })
	t.Logf("withdrawn after %s", time.Since(died).Round(time.Millisecond))
	shop.awaitCall("books", "books-1")
}
