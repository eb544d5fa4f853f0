package admin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
	"github.com/weirmesh/weir/resource/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is an admin API that serves on a port of its own.
type api struct {
	weirv1connect.AdminServiceClient
	operator weirv1connect.ClusterServiceClient
	usage    weirv1connect.UsageServiceClient
	address  string
	cluster  *admintest.Cluster
	servers  *admintest.Servers
	proxies  *admintest.Proxies
	log      *buffer
}

// start serves the API over memory; change may alter its configuration.
func start(t *testing.T, change func(*admin.Config)) *api {
	t.Helper()
	return startOn(t, "http://", nil, &http.Transport{}, change)
}

// startOn does so with TLS or without, to a client with a transport of its own.
func startOn(t *testing.T, scheme string, tlsConfig *tls.Config, transport *http.Transport, change func(*admin.Config)) *api {
	t.Helper()
	cluster, err := admintest.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &api{cluster: cluster, log: new(buffer)}
	logger := slog.New(slog.NewTextHandler(a.log, nil))
	config := admintest.Config(cluster, logger)
	a.proxies, a.servers = config.Proxies.(*admintest.Proxies), config.Servers.(*admintest.Servers)
	if change != nil {
		change(&config)
	}
	handler, err := admin.New(config)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.address = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx, l, handler, tlsConfig, logger) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	client := connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, scheme+a.address))
	a.AdminServiceClient, a.operator = weirv1connect.NewAdminServiceClient(client), weirv1connect.NewClusterServiceClient(client)
	a.usage = weirv1connect.NewUsageServiceClient(client)
	return a
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const shop = `
kind: Gateway
metadata: {name: public}
spec: {listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
kind: Service
metadata: {name: books, labels: {team: a}}
spec: {endpoints: [{address: "127.0.0.1:9001"}]}
---
kind: Route
metadata: {name: books}
spec:
  parentRefs: [{name: public}]
  rules: [{matches: [{path: {value: /books}}], backendRefs: [{name: books}]}]
`

func read(t *testing.T, yaml string) []*weirv1.Resource {
	t.Helper()
	items, err := manifest.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	var resources []*weirv1.Resource
	for _, item := range items {
		resources = append(resources, item.Resource)
	}
	return resources
}

func (a *api) apply(t *testing.T, yaml string) *weirv1.ApplyResponse {
	t.Helper()
	done, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, yaml)})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func outcomes(done *weirv1.ApplyResponse) string {
	var words []string
	for _, r := range done.GetResults() {
		words = append(words, strings.ToLower(r.GetRef().GetKind())+"/"+r.GetRef().GetName()+" "+strings.ToLower(r.GetOutcome().String()))
	}
	return strings.Join(words, ", ")
}

// expectError compares a code and a part of the message, and returns the fields
// that the details name.
func expectError(t *testing.T, err error, code connect.Code, message string) []string {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), message) {
		t.Fatalf("got %v, want %v: %s", err, code, message)
	}
	var wire *connect.Error
	var fields []string
	if errors.As(err, &wire) {
		for _, detail := range wire.Details() {
			m, err := connectproto.UnmarshalErrorDetail(detail)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range m.(*errdetails.BadRequest).GetFieldViolations() {
				fields = append(fields, v.GetField())
			}
		}
	}
	return fields
}

func TestApplyIsOneTransaction(t *testing.T) {
	a := start(t, nil)
	done := a.apply(t, shop)
	if got, want := outcomes(done), "gateway/public created, service/books created, route/books created"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	again := a.apply(t, shop)
	if got, want := outcomes(again), "gateway/public unchanged, service/books unchanged, route/books unchanged"; got != want || again.GetRevision() != done.GetRevision() {
		t.Errorf("got %s at %d, want %s at %d", got, again.GetRevision(), want, done.GetRevision())
	}
	_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, `
kind: Service
metadata: {name: other}
---
kind: Route
metadata: {name: other}
spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: other}, {name: nowhere}]}]}
`)})
	fields := expectError(t, err, connect.CodeInvalidArgument, "Route other: spec.rules[0].backendRefs[1].name: there is no Service nowhere")
	if len(fields) != 1 || fields[0] != "resources[1].spec.rules[0].backendRefs[1].name" {
		t.Errorf("got fields %q", fields)
	}
	_, err = a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Service", Name: "other"}})
	expectError(t, err, connect.CodeNotFound, "there is no Service other")

	for _, want := range []string{"actor=loopback", `resource="Route books" outcome=CREATED`, `msg="change refused"`} {
		if !strings.Contains(a.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, a.log)
		}
	}
	cmd := a.cluster.Commands()[0]
	if cmd.GetId() == "" || cmd.GetTime() == nil || cmd.GetActor() != "loopback" || cmd.GetId() == a.cluster.Commands()[1].GetId() {
		t.Errorf("the command lacks an id, a time or an actor: %v", cmd)
	}
}

func TestApplyRefusesWhatIsWrongByItself(t *testing.T) {
	a := start(t, nil)
	_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{
		{Kind: &weirv1.Resource_Service{Service: &weirv1.Service{Metadata: &weirv1.Metadata{Name: "ok"}}}},
		{Kind: &weirv1.Resource_Service{Service: &weirv1.Service{Metadata: &weirv1.Metadata{Name: "ok"}}}},
		{Kind: &weirv1.Resource_Gateway{Gateway: &weirv1.Gateway{Metadata: &weirv1.Metadata{Name: "Bad"}}}},
		{},
	}, Deletes: []*weirv1.ResourceRef{{Kind: "Servce", Name: "x"}, {Kind: "Service"}, {Kind: "services", Name: "ok"}}})
	fields := expectError(t, err, connect.CodeInvalidArgument, `Gateway Bad: metadata.name: "Bad" is not a name`)
	if got, want := strings.Join(fields, " "), "resources[0].metadata.name resources[2].metadata.name resources[2].spec.listeners resources[3]   resources[0]"; got != want {
		t.Errorf("got fields  %q\nwant        %q", got, want)
	}
	if len(a.cluster.Commands()) != 0 {
		t.Error("it was proposed")
	}
}

func TestDryRunStoresNothing(t *testing.T) {
	a := start(t, nil)
	done, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, shop), DryRun: true})
	if err != nil || outcomes(done) != "gateway/public created, service/books created, route/books created" {
		t.Fatalf("got %v, %v", outcomes(done), err)
	}
	if len(a.cluster.Commands()) != 0 {
		t.Error("it was proposed")
	}
	a.apply(t, shop)
	if _, err = a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "route", Name: "books"}}, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if _, err = a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "routes", Name: "books"}}); err != nil {
		t.Error(err)
	}
}

func TestStatusIsNotTheCallers(t *testing.T) {
	a := start(t, nil)
	done := a.apply(t, "kind: Service\nmetadata: {name: a}\nstatus: {conditions: [{type: Accepted, status: True}]}")
	if done.GetResults()[0].GetResource().GetService().GetStatus() != nil {
		t.Error("the caller's status was stored")
	}
}

func TestErrorsSayWhatBecameOfTheChange(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, "kind: Service\nmetadata: {name: books, revision: 999}")})
	if fields := expectError(t, err, connect.CodeAborted, "revision 999 was expected, but it is at 1"); len(fields) != 1 || fields[0] != "resources[0].metadata.revision" {
		t.Errorf("got fields %q", fields)
	}
	_, err = a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Service", Name: "books"}}})
	if fields := expectError(t, err, connect.CodeFailedPrecondition, "Service books: "); len(fields) != 1 || fields[0] != "refs[0]" {
		t.Errorf("got fields %q", fields)
	}
	_, err = a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Service", Name: "nowhere"}}})
	expectError(t, err, connect.CodeNotFound, "Service nowhere: it is not there")
	_, err = a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Pod", Name: "x"}}})
	expectError(t, err, connect.CodeInvalidArgument, `there is no kind "Pod"`)

	for cause, code := range map[error]connect.Code{
		admin.ErrUnavailable:      connect.CodeUnavailable,
		admin.ErrUnknown:          connect.CodeUnknown,
		errors.New("disk secret"): connect.CodeInternal,
	} {
		a.cluster.Fail(cause)
		_, err = a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: read(t, shop)})
		expectError(t, err, code, "")
		if strings.Contains(err.Error(), "secret") || !strings.Contains(a.log.String(), cause.Error()) {
			t.Errorf("%v: what is for the log went to the caller: %v", cause, err)
		}
		_, err = a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Route", Name: "books"}})
		expectError(t, err, code, "")
	}
}

func TestGetAndList(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	a.apply(t, "kind: Service\nmetadata: {name: books, tenant: acme}")
	got, err := a.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "service", Name: "books", Tenant: "acme"}})
	if err != nil || got.GetResource().GetService().GetMetadata().GetTenant() != "acme" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, c := range []struct {
		req  *weirv1.ListRequest
		want string
	}{
		{&weirv1.ListRequest{}, "public books books"},
		{&weirv1.ListRequest{Kind: "Services"}, "books"},
		{&weirv1.ListRequest{Kind: "Service", Tenant: "*"}, "books books"},
		{&weirv1.ListRequest{Tenant: "acme"}, "books"},
		{&weirv1.ListRequest{Labels: map[string]string{"team": "a"}}, "books"},
		{&weirv1.ListRequest{Labels: map[string]string{"team": "b"}}, ""},
	} {
		page, err := a.List(t.Context(), c.req)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(page.GetResources()); got != c.want || page.GetNextPageToken() != "" || page.GetRevision() == 0 {
			t.Errorf("%v: got %q, want %q", c.req, got, c.want)
		}
	}
	_, err = a.List(t.Context(), &weirv1.ListRequest{Kind: "HTTPRoute"})
	expectError(t, err, connect.CodeInvalidArgument, `kind: there is no kind "HTTPRoute"; did you mean "Route"?`)
	_, err = a.List(t.Context(), &weirv1.ListRequest{PageToken: "?"})
	expectError(t, err, connect.CodeInvalidArgument, "pageToken: is not one that a List returned")
}

func names(resources []*weirv1.Resource) string {
	var all []string
	for _, r := range resources {
		switch {
		case r.GetGateway() != nil:
			all = append(all, r.GetGateway().GetMetadata().GetName())
		case r.GetService() != nil:
			all = append(all, r.GetService().GetMetadata().GetName())
		case r.GetRoute() != nil:
			all = append(all, r.GetRoute().GetMetadata().GetName())
		}
	}
	return strings.Join(all, " ")
}

// Pages neither repeat nor lose what stays, whatever comes and goes between them.
func TestListPages(t *testing.T) {
	a := start(t, nil)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		a.apply(t, "kind: Service\nmetadata: {name: "+name+"}")
	}
	var got []string
	req := &weirv1.ListRequest{PageSize: 2}
	for {
		page, err := a.List(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, names(page.GetResources()))
		if req.PageToken == "" {
			if _, err := a.Delete(t.Context(), &weirv1.DeleteRequest{Refs: []*weirv1.ResourceRef{{Kind: "Service", Name: "b"}}}); err != nil {
				t.Fatal(err)
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if strings.Join(got, "|") != "a b|c d|e" {
		t.Errorf("got pages %q", got)
	}
}

func TestWaitRevision(t *testing.T) {
	at := func(name string, revision uint64) *weirv1.ProxyStatus {
		return &weirv1.ProxyStatus{Name: name, Connected: true, Revision: revision}
	}
	a := start(t, nil)
	wait := func(timeout string) *weirv1.WaitRevisionResponse {
		t.Helper()
		d, _ := time.ParseDuration(timeout)
		res, err := a.WaitRevision(t.Context(), &weirv1.WaitRevisionRequest{Revision: 5, Timeout: durationOf(d)})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if !wait("1m").GetDone() {
		t.Error("with no proxy there is nobody to wait for")
	}
	a.proxies.Set(at("a", 5), at("b", 4))
	if res := wait("0s"); res.GetDone() || len(res.GetProxies()) != 2 {
		t.Errorf("b is behind, but got %v", res)
	}
	behind := at("b", 4)
	behind.RefusedRevision, behind.RefusedReason = 5, "no such plugin"
	a.proxies.Set(at("a", 5), behind)
	if res := wait("1m"); res.GetDone() || res.GetProxies()[1].GetRefusedReason() == "" {
		t.Errorf("b has refused, but got %v", res)
	}
	a.proxies.Set(at("a", 5), &weirv1.ProxyStatus{Name: "b", Revision: 1})
	if !wait("1m").GetDone() {
		t.Error("a proxy that is not connected is waited for")
	}
	a.proxies.Set(at("a", 5), at("b", 4))
	answered := make(chan *weirv1.WaitRevisionResponse)
	go func() {
		res, _ := a.WaitRevision(context.WithoutCancel(t.Context()), &weirv1.WaitRevisionRequest{Revision: 5})
		answered <- res
	}()
	a.proxies.Set(at("a", 5), at("b", 6))
	if res := <-answered; !res.GetDone() {
		t.Errorf("got %v", res)
	}
	_, err := a.WaitRevision(t.Context(), &weirv1.WaitRevisionRequest{Timeout: durationOf(-time.Second)})
	expectError(t, err, connect.CodeInvalidArgument, "timeout: must be from 0s to 10m0s, not -1s")
}

func TestStatusAndJoinToken(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	a.proxies.Set(&weirv1.ProxyStatus{Name: "a"})
	status, err := a.GetStatus(t.Context(), &weirv1.GetStatusRequest{})
	if err != nil || status.GetVersion() != "v1.2.3" || status.GetLeader() != "one" || status.GetResources()["Route"] != 1 ||
		len(status.GetProxies()) != 1 || status.GetRevision() != 1 {
		t.Errorf("got %v, %v", status, err)
	}
	token, err := a.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE})
	if err != nil || token.GetToken() != "join-EDGE-1h0m0s" {
		t.Errorf("got %v, %v", token, err)
	}
	_, err = a.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{})
	expectError(t, err, connect.CodeInvalidArgument, "role: is required")
	_, err = a.CreateJoinToken(t.Context(), &weirv1.CreateJoinTokenRequest{Role: weirv1.CreateJoinTokenRequest_EDGE, Ttl: durationOf(1000 * time.Hour)})
	expectError(t, err, connect.CodeInvalidArgument, "ttl: must be more than 0s and at most 720h0m0s")
}

func TestConfigMustBeWhole(t *testing.T) {
	_, err := admin.New(admin.Config{})
	for _, want := range []string{"Store is missing", "Cluster is missing", "nobody could call it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestServeEndsWatchesWhenItStops(t *testing.T) {
	cluster, err := admintest.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	handler, err := admin.New(admintest.Config(cluster, slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- admin.Serve(ctx, l, handler, nil, slog.New(slog.DiscardHandler)) }()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := weirv1connect.NewAdminServiceClient(connect.NewClient(
		connecthttp.NewTransport(&http.Client{Transport: transport}, "http://"+l.Addr().String())))
	stream, err := client.Watch(t.Context(), &weirv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	stop()
	for err = nil; err == nil; {
		_, err = stream.Receive()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the watch was cut off: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
