package proxy_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/telemetry"
)

// caller is the WASM host's own test plugin, which does what the field x-do says.
var caller = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "caller")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "caller.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "../policy/wasm/testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plugin: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

// startCaller starts an edge whose route / runs the plugin, which may call these.
func startCaller(t *testing.T, grants []*weirv1.ServiceGrant, resources ...resource.Message) *edge {
	t.Helper()
	return startCallerWith(t, new(journal), grants, resources...)
}

func startCallerWith(t *testing.T, j *journal, grants []*weirv1.ServiceGrant, resources ...resource.Message) *edge {
	t.Helper()
	module, err := caller()
	if err != nil {
		t.Fatal(err)
	}
	host, err := wasm.NewHost(wasm.Config{
		Modules: func(context.Context, string) ([]byte, error) { return module, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(module))
	return startEdgeWith(t, func(c *proxy.Config) {
		c.Policies = host
		c.Access = telemetry.NewAccessLog(j, c.Metrics.LogLost)
		t.Cleanup(c.Access.Close)
	}, append(resources,
		&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: "caller"}, Spec: &weirv1.PluginSpec{Digest: digest}}, callerPolicy(grants))...)
}

func callerPolicy(grants []*weirv1.ServiceGrant) *weirv1.Policy {
	config, _ := structpb.NewStruct(map[string]any{"on": true})
	return &weirv1.Policy{Metadata: &weirv1.Metadata{Name: "caller"}, Spec: &weirv1.PolicySpec{
		TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}, Plugin: "caller", Config: config, Services: grants}}
}

// tell asks the plugin for commands, and returns the status and the body.
func tell(t *testing.T, e *edge, commands string) (int, string) {
	t.Helper()
	req := newRequest(t, "GET", e.url("/"), nil)
	req.Header.Set("X-Do", commands)
	resp, body := do(t, http.DefaultClient, req)
	return resp.StatusCode, body
}

// took answers with what the plugin has put into the request.
func took(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Take")) }

const waitAndTake = "; request: wait 1; answer: take; answer: go"

// TestPolicyCallsAService that it was granted, by whatever name, and no other; over
// the proxy's own connections, to which limits and health apply.
func TestPolicyCallsAService(t *testing.T) {
	users := upstreamServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Up", r.Method+" "+r.Host+r.URL.Path+" "+r.Header.Get("X-From"))
		fmt.Fprintf(w, "<%s>", body)
	})
	slow := upstreamServer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	secret := upstreamServer(t, func(http.ResponseWriter, *http.Request) { t.Error("the secret service is asked") })
	none := service("none")
	full := service("full", users)
	full.Spec.Limits = &weirv1.Limits{MaxRequests: 1}
	e := startCaller(t, []*weirv1.ServiceGrant{{Name: "users"}, {Name: "users", As: "outbound|80||users.local"}, {Name: "slow"}, {Name: "none"}},
		service("s", upstreamServer(t, took)), service("users", users), service("slow", slow), service("secret", secret), none, full,
		route("r", "/", "s", func(r *weirv1.RouteRule) {
			r.Timeouts = &weirv1.RouteTimeouts{Request: duration(2 * time.Second)}
		}))
	for _, c := range []struct {
		name, do string
		status   int
		body     string
	}{
		{"by its name", "request: call users /id hello" + waitAndTake, 200, "http 5,7,0 200 up=POST up.example/id guest body=<hello> trailer= code=0"},
		{"by the plugin's name for it", "request: call outbound|80||users.local /id" + waitAndTake, 200, "body=<>"},
		{"a service without an endpoint", "request: call none /" + waitAndTake, 200, "http 0,0,0  up= body= trailer= code=14 no_endpoint"},
		{"a service that is too slow", "request: call-ms 50 slow /" + waitAndTake, 200, "http 0,0,0  up= body= trailer= code=4"},
		{"an answer by what was answered", "request: call users /id; request: wait 1; answer: reply 403 no", 403, "no"},
		{"the request's time is over", "request: call-ms 60000 slow /; request: wait 1; answer: go", 504, "did not decide in time"},
		{"a service that is not granted", "request: call secret /; request: reply 500 refused", 500, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := tell(t, e, c.do)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("%d %q, want %d %q", status, body, c.status, c.body)
			}
		})
	}
}

// TestACallFollowsItsService: the endpoints are those of the newest configuration,
// and the plugin's sandboxes stay as they were. Those who may end are what an
// exchange began with.
func TestACallFollowsItsService(t *testing.T) {
	named := func(name string) string {
		return upstreamServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	}
	first, second := named("first"), named("second")
	grants := []*weirv1.ServiceGrant{{Name: "users"}}
	e := startCaller(t, grants, service("s", upstreamServer(t, took)), service("users", first), route("r", "/", "s"))
	ask := func(want string) {
		t.Helper()
		if _, body := tell(t, e, "request: call users /"+waitAndTake); !strings.Contains(body, "body="+want+" ") {
			t.Errorf("got %q, want %s", body, want)
		}
	}
	ask("first")
	e.apply(service("users", second))
	ask("second")
	e.apply(callerPolicy(nil))
	if status, body := tell(t, e, "request: call users /; request: reply 500 refused"); status != 500 || body != "refused" {
		t.Errorf("no longer granted: %d %q", status, body)
	}
	e.apply(callerPolicy(grants))
	ask("second")
}

// TestShutdownEndsCalls: of exchanges that are over, and of the plugin itself.
func TestShutdownEndsCalls(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan struct{})
	slow := upstreamServer(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		close(gone)
	})
	e := startCaller(t, []*weirv1.ServiceGrant{{Name: "slow"}},
		service("s", upstreamServer(t, took)), service("slow", slow), route("r", "/", "s"))
	if status, _ := tell(t, e, "log: call-ms 300000 slow /"); status != 200 {
		t.Error(status)
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := e.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(2 * time.Minute):
		t.Error("the call goes on")
	}
}

// raw is a codec of gRPC that leaves messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte(nil), b...); return nil }
func (raw) Name() string                    { return "proto" }

// echoService is a gRPC server of the usual library, as a service: it says everything
// again, louder.
func echoService(t *testing.T) *weirv1.Service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		if method == "/test.Echo/Fail" {
			return status.Error(codes.PermissionDenied, "not you: 100 %")
		}
		md, _ := metadata.FromIncomingContext(stream.Context())
		stream.SetHeader(metadata.Pairs("x-up", strings.Join(md["x-from"], "")))
		stream.SetTrailer(metadata.Pairs("x-up-trailer", "bye"))
		for {
			var m []byte
			if err := stream.RecvMsg(&m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if string(m) == "hang" {
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			m = append(m, '!')
			if err := stream.SendMsg(&m); err != nil {
				return err
			}
		}
	}))
	go server.Serve(l)
	t.Cleanup(server.Stop)
	echo := service("echo", l.Addr().String())
	echo.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	return echo
}

// TestPolicyCallsAGRPCService: one call and streams.
func TestPolicyCallsAGRPCService(t *testing.T) {
	echo := echoService(t)
	e := startCaller(t, []*weirv1.ServiceGrant{{Name: "echo"}, {Name: "dead"}},
		service("s", upstreamServer(t, took)), echo, service("dead", "127.0.0.1:1"), route("r", "/", "s"))
	for name, c := range map[string]struct{ do, want string }{
		"unary":               {"request: grpc unary echo Say hello", "grpc 0,6,0  up=guest body=hello! trailer=bye code=0"},
		"a status":            {"request: grpc unary echo Fail hello", "closed 7  0,0,0  up= body= trailer= code=7 not you: 100 %"},
		"no server":           {"request: grpc unary dead Say hello", "code=14 connect_failed"},
		"a stream":            {"request: grpc stream echo Chat a b c end", "closed 0 initial guest,a!,b!,c!,trailing bye 0,0,0  up= body= trailer= code=0"},
		"a stream that fails": {"request: grpc stream echo Fail a end", "closed 7 "},
		"too late":            {"request: grpc unary echo Say hang", "closed 4  "},
	} {
		t.Run(name, func(t *testing.T) {
			if _, body := tell(t, e, c.do+waitAndTake); !strings.Contains(body, c.want) {
				t.Errorf("got %q, want %q", body, c.want)
			}
		})
	}
	// A stream that nobody ends does not keep the edge from ending.
	if status, _ := tell(t, e, "request: grpc stream echo Chat a"); status != 200 {
		t.Error(status)
	}
}

// TestAnOpenStreamEndsOnTheWireAsThePluginSays: cancelled, by a reset; closed, by the
// end of what is sent, after which the service's answer still comes.
func TestAnOpenStreamEndsOnTheWireAsThePluginSays(t *testing.T) {
	ends := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		io.WriteString(w, "\x00\x00\x00\x00\x01a")
		w.(http.Flusher).Flush()
		_, err := io.ReadAll(r.Body)
		ends <- fmt.Sprint(err)
		io.WriteString(w, "\x00\x00\x00\x00\x01z")
		w.Header().Set("Grpc-Status", "0")
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	talk := service("talk", server.Listener.Addr().String())
	talk.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	e := startCaller(t, []*weirv1.ServiceGrant{{Name: "talk"}}, service("s", upstreamServer(t, took)), talk, route("r", "/", "s"))
	const open = "request: grpc stream talk Chat hello; request: wait 1; "
	for _, c := range []struct{ name, do, wire, took string }{
		{"cancelled", "heard message: grpc-cancel; heard message: take; heard message: go", "CANCEL", ""},
		{"closed", "heard message: grpc-close; answer: take; answer: go", "<nil>", "closed 0 initial ,a,z,trailing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body := tell(t, e, open+c.do); status != 200 || !strings.Contains(body, c.took) {
				t.Errorf("%d %q, want %q", status, body, c.took)
			}
			if got := <-ends; !strings.Contains(got, c.wire) {
				t.Errorf("the service sees %q, want %s", got, c.wire)
			}
		})
	}
}

// TestAPolicyChoosesTheEndpoint, if that is there and well; else the balancer does.
func TestAPolicyChoosesTheEndpoint(t *testing.T) {
	named := func(name string) string {
		return upstreamServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
	}
	a, b := named("a"), named("b")
	e := startCaller(t, nil, service("s", a, b), route("r", "/", "s"))
	for address, want := range map[string]string{a: "a", b: "b"} {
		for range 6 {
			if status, body := tell(t, e, "request: prefer "+address); status != 200 || body != want {
				t.Errorf("%s: %d %q, want %s", address, status, body, want)
			}
		}
	}
	seen := map[string]bool{}
	for range 8 {
		_, body := tell(t, e, "request: prefer 192.0.2.1:1")
		seen[body] = true
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("an endpoint that is not there leads to %v", seen)
	}
	if _, body := tell(t, e, "request: endpoints; request: reply 200 ok"); body != "ok" {
		t.Error(body)
	}
}
