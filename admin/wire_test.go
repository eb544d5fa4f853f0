package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/weirmesh/weir/admin"
	"github.com/weirmesh/weir/admin/admintest"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

// curl posts JSON as curl does.
func (a *api) curl(t *testing.T, method, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.address+"/weir.v1.AdminService/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

func TestJSON(t *testing.T) {
	a := start(t, nil)
	code, body := a.curl(t, "Apply", `{"resources": [
		{"kind": "Gateway", "metadata": {"name": "public"}, "spec": {"listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}]}},
		{"service": {"metadata": {"name": "books"}, "spec": {"connectTimeout": "1h30m"}}},
		{"route": {"metadata": {"name": "books"}, "spec": {"parentRefs": [{"name": "public"}],
			"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/books"}}], "backendRefs": [{"name": "books"}]}]}}}]}`)
	var done struct {
		Results []struct{ Outcome string }
	}
	if err := json.Unmarshal([]byte(body), &done); err != nil || code != 200 || len(done.Results) != 3 || done.Results[2].Outcome != "CREATED" {
		t.Fatalf("got %d %s", code, body)
	}
	if code, body = a.curl(t, "Get", `{"ref": {"kind": "Service", "name": "books"}}`); code != 200 || !strings.Contains(body, `"connectTimeout":"5400s"`) {
		t.Errorf("got %d %s", code, body)
	}
	for _, c := range []struct {
		method, body string
		code         int
		want         string
	}{
		{"Get", `{"ref": {"kind": "Service", "name": "x"}}`, 404, `"message":"there is no Service x"`},
		{"Get", `{"ref": {"knd": "Service"}}`, 400, `ref.knd: unknown field; did you mean \"kind\"?`},
		{"Get", ``, 400, `the body is empty`},
		{"Get", `{`, 400, `invalid_argument`},
		{"Apply", `{"resources": [{"kind": "Route", "metadata": {"name": "a"}, "spec": {"rules": [{"matches": [{"path": {"type": "Prefix"}}]}]}}]}`, 400, `google.rpc.BadRequest`},
	} {
		if code, body := a.curl(t, c.method, c.body); code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: got %d %s", c.method, c.body, code, body)
		}
	}
}

// Who calls by hand and leaves something out is told what.
func TestCallsThatAreNone(t *testing.T) {
	a := start(t, nil)
	transport := &http.Transport{DisableKeepAlives: true}
	for _, c := range []struct {
		method, path, contentType string
		code                      int
		want                      string
	}{
		{"POST", "/weir.v1.AdminService/GetStatus", "application/x-www-form-urlencoded", 415, "Content-Type: application/json"},
		{"POST", "/weir.v1.AdminService/GetStatus", "", 415, "Content-Type: application/json"},
		{"POST", "/weir.v1.AdminService/GetStatus", "application/json; charset=utf-8", 200, "leader"},
		{"POST", "/weir.v1.AdminService/Watch", "application/json", 415, "a watch is a stream"},
		{"GET", "/weir.v1.AdminService/GetStatus", "", 405, "a call is a POST"},
		{"POST", "/weir.v1.AdminService/Status", "application/json", 501, "not registered"},
		{"GET", "/", "", 404, ""},
	} {
		t.Run(c.method+" "+c.path+" "+c.contentType, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+a.address+c.path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if c.contentType != "" {
				req.Header.Set("Content-Type", c.contentType)
			}
			res, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != c.code || !strings.Contains(string(body), c.want) {
				t.Errorf("got %d %s, %v", res.StatusCode, body, err)
			}
		})
	}
}

func TestWhoMayCall(t *testing.T) {
	open := start(t, nil)
	closed := start(t, func(c *admin.Config) { c.AllowLoopback = false })
	const empty = `{}`
	for _, c := range []struct {
		name    string
		api     *api
		headers []string
		code    int
		want    string
	}{
		{"loopback", open, nil, 200, ""},
		{"loopback where a token is needed", closed, nil, 401, "a token is needed"},
		{"a token", closed, []string{"Authorization", "Bearer s3cret"}, 200, ""},
		{"a token, scheme in lower case", closed, []string{"Authorization", "bearer s3cret"}, 200, ""},
		{"a wrong token", closed, []string{"Authorization", "Bearer wrong"}, 401, "the token is not known"},
		{"a wrong token from loopback", open, []string{"Authorization", "Bearer wrong"}, 401, "the token is not known"},
		{"another scheme", closed, []string{"Authorization", "Basic czNjcmV0"}, 401, "must be: Bearer TOKEN"},
		{"an empty token", open, []string{"Authorization", "Bearer "}, 401, "must be: Bearer TOKEN"},
		{"through a reverse proxy", open, []string{"X-Forwarded-For", "203.0.113.9"}, 401, "a token is needed"},
		{"DNS rebinding", open, []string{"Host", "evil.example:7401"}, 403, "only calls for localhost"},
		{"any name with a token", open, []string{"Host", "weir.example", "Authorization", "Bearer s3cret"}, 200, ""},
		{"localhost by name", open, []string{"Host", "localhost:7401"}, 200, ""},
		{"a page of another origin", open, []string{"Origin", "https://evil.example"}, 403, "another origin"},
		{"a page of another origin, by a browser's word", open, []string{"Sec-Fetch-Site", "cross-site"}, 403, "another origin"},
		{"a page of another origin, even with a token", closed, []string{"Origin", "https://evil.example", "Authorization", "Bearer s3cret"}, 403, "another origin"},
		{"the console", open, []string{"Origin", "http://localhost:7401", "Host", "localhost:7401", "Sec-Fetch-Site", "same-origin"}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, body := c.api.curl(t, "GetStatus", empty, c.headers...); code != c.code || !strings.Contains(body, c.want) {
				t.Errorf("got %d %s", code, body)
			}
		})
	}
	noTokens := start(t, func(c *admin.Config) { c.Tokens = nil })
	if code, body := noTokens.curl(t, "GetStatus", empty, "Authorization", "Bearer s3cret"); code != 401 || !strings.Contains(body, "unset WEIR_TOKEN") {
		t.Errorf("got %d %s", code, body)
	}
	closed.curl(t, "Apply", `{"resources": [{"kind": "Service", "metadata": {"name": "a"}}]}`, "Authorization", "Bearer s3cret")
	if log := closed.log.String(); !strings.Contains(log, "actor=alice") || strings.Contains(log, "s3cret") {
		t.Errorf("the log should name the bearer and not hold the token:\n%s", log)
	}
}

// Each protocol gets what it expects on the same port.
func TestProtocolsOfOnePort(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	for name, option := range map[string]connecthttp.Option{
		"grpc-web": connecthttp.WithGRPCWeb(), "connect": connecthttp.WithSendGzip(), "json": connecthttp.WithProtoJSON(),
	} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client := weirv1connect.NewAdminServiceClient(connect.NewClient(
				connecthttp.NewTransport(&http.Client{Transport: transport}, "http://"+a.address, option)))
			got, err := client.List(t.Context(), &weirv1.ListRequest{})
			if err != nil || len(got.GetResources()) != 3 {
				t.Errorf("got %v, %v", got, err)
			}
			_, err = client.Get(t.Context(), &weirv1.GetRequest{Ref: &weirv1.ResourceRef{Kind: "Route", Name: "x"}})
			expectError(t, err, connect.CodeNotFound, "there is no Route x")
		})
	}
}

func dial(t *testing.T, a *api) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(a.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestGRPC(t *testing.T) {
	a := start(t, nil)
	a.apply(t, shop)
	conn := dial(t, a)
	list := new(weirv1.ListResponse)
	if err := conn.Invoke(t.Context(), "/weir.v1.AdminService/List", &weirv1.ListRequest{}, list); err != nil || len(list.GetResources()) != 3 {
		t.Errorf("got %v, %v", list, err)
	}
	err := conn.Invoke(t.Context(), "/weir.v1.AdminService/Apply", &weirv1.ApplyRequest{Resources: []*weirv1.Resource{{}}}, new(weirv1.ApplyResponse))
	got := status.Convert(err)
	if got.Code() != codes.InvalidArgument || len(got.Details()) != 1 ||
		got.Details()[0].(*errdetails.BadRequest).GetFieldViolations()[0].GetField() != "resources[0]" {
		t.Errorf("got %v %v", got, got.Details())
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/weir.v1.AdminService/Watch")
	if err != nil {
		t.Fatal(err)
	}
	event := new(weirv1.WatchResponse)
	if err := stream.SendMsg(&weirv1.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(event); err != nil || event.GetType() != weirv1.WatchResponse_RESET {
		t.Errorf("got %v, %v", event, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestReflection(t *testing.T) {
	a := start(t, nil)
	conn := dial(t, a)
	stream, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflection.ServerReflectionRequest) *reflection.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	services := ask(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}})
	if got := services.String(); !strings.Contains(got, "weir.v1.AdminService") || !strings.Contains(got, "grpc.health.v1.Health") {
		t.Errorf("got %s", got)
	}
	file := ask(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "weir.v1.AdminService.Apply"}})
	if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("got %v", file)
	}
	// The messages of v1alpha are those of v1.
	alpha, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	if err := alpha.SendMsg(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res := new(reflection.ServerReflectionResponse)
	if err := alpha.RecvMsg(res); err != nil || !strings.Contains(res.String(), "weir.v1.AdminService") {
		t.Errorf("got %v, %v", res, err)
	}

	closed := dial(t, start(t, func(c *admin.Config) { c.AllowLoopback = false }))
	refused, err := reflection.NewServerReflectionClient(closed).ServerReflectionInfo(t.Context())
	if err == nil {
		_, err = refused.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s3cret")
	admitted, err := reflection.NewServerReflectionClient(closed).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := admitted.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := admitted.Recv(); err != nil {
		t.Error(err)
	}
}

// Whoever balances load may ask for health without a token.
func TestHealth(t *testing.T) {
	a := start(t, func(c *admin.Config) {
		c.AllowLoopback, c.Tokens = false, admintest.Tokens{}
	})
	client := health.NewHealthClient(dial(t, a))
	check := func(service string) string {
		res, err := client.Check(t.Context(), &health.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return res.GetStatus().String()
	}
	for service, want := range map[string]string{"": "SERVING", "weir.v1.AdminService": "SERVING", "x": "NotFound"} {
		if got := check(service); got != want {
			t.Errorf("%q: got %s, want %s", service, got, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := client.Watch(ctx, &health.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := stream.Recv(); err != nil || res.GetStatus() != health.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", res, err)
	}
	a.servers.Lose(time.Minute)
	if got := check(""); got != "NOT_SERVING" {
		t.Errorf("got %s", got)
	}
}
