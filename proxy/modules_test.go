//go:build !race

// The race detector slows down the engine's compiler so much that a module of this size
// takes it minutes.

package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirmesh/weir/policy/wasm"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy"
	"github.com/weirmesh/weir/resource"
)

// buildModule builds a plugin from its source.
func buildModule(dir string) ([]byte, error) {
	to, err := os.MkdirTemp("", "module")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(to)
	file := filepath.Join(to, "module.wasm")
	cmd := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", dir, err, out)
	}
	return os.ReadFile(file)
}

// standard is the module of the standard policies, talker the SDK's own test plugin.
var (
	standard = sync.OnceValues(func() ([]byte, error) { return buildModule(filepath.Join("..", "examples", "plugins", "standard")) })
	talker   = sync.OnceValues(func() ([]byte, error) { return buildModule(filepath.Join("..", "plugins-sdk", "testdata", "talk")) })
)

// startModule starts an edge whose route / runs a module under a configuration, and may
// call a service.
func startModule(t *testing.T, build func() ([]byte, error), plugin, config string, granted *weirv1.Service, to http.HandlerFunc) *edge {
	t.Helper()
	module, err := build()
	if err != nil {
		t.Fatal(err)
	}
	host, err := wasm.NewHost(wasm.Config{Modules: func(context.Context, string) ([]byte, error) { return module, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	var parsed structpb.Struct
	if err := parsed.UnmarshalJSON([]byte(config)); err != nil {
		t.Fatal(err)
	}
	return startEdgeWith(t, func(c *proxy.Config) { c.Policies = host }, []resource.Message{
		service("s", upstreamServer(t, to)), granted,
		route("r", "/", "s", func(r *weirv1.RouteRule) {
			r.Timeouts = &weirv1.RouteTimeouts{Request: duration(time.Minute)}
		}),
		&weirv1.Plugin{Metadata: &weirv1.Metadata{Name: plugin}, Spec: &weirv1.PluginSpec{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(module))}},
		&weirv1.Policy{Metadata: &weirv1.Metadata{Name: "p"}, Spec: &weirv1.PolicySpec{
			TargetRefs: []*weirv1.TargetRef{{Kind: "Route", Name: "r"}}, Plugin: plugin, Config: &parsed,
			Services: []*weirv1.ServiceGrant{{Name: granted.GetMetadata().GetName()}}}},
	}...)
}

// startStandard starts an edge with a standard policy, which may call the service idp,
// before a service that answers with who it is told calls.
func startStandard(t *testing.T, plugin, config string, idp http.HandlerFunc) *edge {
	t.Helper()
	return startModule(t, standard, plugin, config, service("idp", upstreamServer(t, idp)), func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Header.Get("X-Consumer"), body)
	})
}

// TestWhatHandlersAskFor beside HTTP: gRPC, queues and time, by a module that is built with
// the SDK.
func TestWhatHandlersAskFor(t *testing.T) {
	e := startModule(t, talker, "talk", "{}", echoService(t), took)
	for _, c := range []struct {
		do     string
		status int
		body   string
	}{
		{"grpc Say", 200, "hello!"},
		{"grpc Fail", 403, "grpc status 7: not you: 100 %"},
		{"send news", 200, "heard news"},
		{"sleep", 200, "slept"},
		{"chat", 200, "sdk one! two! bye"},
		{"chat cancel", 200, "sdk one!"},
		{"", 200, "nothing"},
	} {
		if status, body := tell(t, e, c.do); status != c.status || body != c.body {
			t.Errorf("%q: %d %q, want %d %q", c.do, status, body, c.status, c.body)
		}
	}
}

// TestWhatHandlersSeeOfTrailers, and make of them, by the same module: with a body that
// ends before them.
func TestWhatHandlersSeeOfTrailers(t *testing.T) {
	e := startModule(t, talker, "talk", "{}", echoService(t), func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-End")
		fmt.Fprintf(w, "%s %v %v", body, r.Trailer["X-Sum"], r.Trailer["X-Secret"])
		w.Header().Set("X-End", "bye")
	})
	for _, c := range []struct {
		name, body, want string
		trailers         http.Header
	}{
		{"trailers", "some body", "SOME BODY [7 checked] []", http.Header{"X-Sum": {"7"}, "X-Secret": {"s"}}},
		{"none", "some body", "SOME BODY [] []", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := newRequest(t, "POST", e.url("/"), io.MultiReader(strings.NewReader(c.body))) // of a length that is not known
			req.Trailer = c.trailers
			resp, body := do(t, http.DefaultClient, req)
			if body != c.want {
				t.Errorf("the service gets %q, want %q", body, c.want)
			}
			if got := resp.Trailer["X-End"]; len(got) != 2 || got[0] != "bye" || got[1] != "bye!" {
				t.Errorf("the client's trailers are %v", resp.Trailer)
			}
		})
	}
}

func withToken(t *testing.T, e *edge, token string) (int, string, http.Header) {
	t.Helper()
	req := newRequest(t, "GET", e.url("/"), nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, body := do(t, http.DefaultClient, req)
	return resp.StatusCode, body, resp.Header
}

// provider is an OpenID provider: it publishes its keys, and signs tokens by them.
type provider struct {
	mu     sync.Mutex
	issuer string
	keys   []jose.JSONWebKey // private; the last one signs
	down   bool
	asked  atomic.Int64 // for keys
}

func (p *provider) rotate(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, jose.JSONWebKey{Key: key, KeyID: id, Algorithm: "ES256", Use: "sig"})
}

func (p *provider) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *provider) token(t *testing.T) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.keys[len(p.keys)-1]}, nil)
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(fmt.Appendf(nil, `{"iss":%q,"sub":"alice","exp":%d}`, p.issuer, time.Now().Add(time.Hour).Unix()))
	if err != nil {
		t.Fatal(err)
	}
	token, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var answer any
	switch r.Host + r.URL.Path {
	case "login.example/shop/.well-known/openid-configuration":
		answer = map[string]string{"issuer": p.issuer, "jwks_uri": "https://login.example/shop/keys"}
	case "login.example/shop/keys":
		p.asked.Add(1)
		set := jose.JSONWebKeySet{}
		for _, key := range p.keys {
			set.Keys = append(set.Keys, key.Public())
		}
		answer = set
	default:
		http.NotFound(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// TestTokensByAProvidersKeys, of which the policy knows the issuer alone: the keys are
// found, fetched once for all sandboxes, waited for, and kept up.
func TestTokensByAProvidersKeys(t *testing.T) {
	p := &provider{issuer: "https://login.example/shop", down: true}
	p.rotate(t, "1")
	e := startStandard(t, "jwt", `{"jwks": {"service": "idp", "issuer": "https://login.example/shop", "refresh": 1, "keep": 3600, "wait": 60}}`, p.ServeHTTP)

	// Nobody has the keys: everyone waits, and passes when they are there.
	token, done := p.token(t), make(chan string)
	const many = 40
	for range many {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), "GET", e.url("/"), nil)
			if err != nil {
				done <- err.Error()
				return
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				done <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			done <- fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)))
		}()
	}
	p.setDown(false)
	for range many {
		if got := <-done; got != "200 alice" {
			t.Errorf("while there are no keys: %s", got)
		}
	}
	if n := p.asked.Load(); n > 10 {
		t.Errorf("the keys were fetched %d times", n)
	}
	if status, _, head := withToken(t, e, ""); status != 401 || head.Get("WWW-Authenticate") != `Bearer realm="restricted"` {
		t.Errorf("without a token: %d %v", status, head)
	}

	// A new key is found within a second, as refresh says.
	p.rotate(t, "2")
	token = p.token(t)
	waitFor(t, func() bool { status, _, _ := withToken(t, e, token); return status == 200 }, func() string { return "the new key is not found" })

	// The keys serve on while the provider does not.
	p.setDown(true)
	asked := p.asked.Load()
	if status, body, _ := withToken(t, e, token); status != 200 {
		t.Errorf("while the provider is down: %d %s", status, body)
	}
	p.setDown(false)
	waitFor(t, func() bool { return p.asked.Load() > asked }, func() string { return "the keys are not fetched again" })
	if status, body, _ := withToken(t, e, token); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}

// TestTokensThatAServerKnows: the authorization server is asked once, however many
// requests come at once.
func TestTokensThatAServerKnows(t *testing.T) {
	var asked atomic.Int64
	revoked := make(chan struct{})
	e := startStandard(t, "introspection", `{"service": "idp", "url": "https://login.example/introspect", "client": {"id": "gate way", "secret": "s3cret/+"},
		"require": {"scope": ["orders"]}, "cache": {"seconds": 1, "negative": 1}}`, func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.Method != "POST" || r.Host != "login.example" || r.URL.Path != "/introspect" || id != "gate+way" || secret != "s3cret%2F%2B" {
			t.Errorf("the server is asked %s %s%s by %q, %q", r.Method, r.Host, r.URL.Path, id, secret)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		asked.Add(1)
		scope := map[string]string{"good": "orders read", "poor": "read"}[r.PostFormValue("token")]
		select {
		case <-revoked:
			scope = ""
		default:
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active": %t, "scope": %q, "sub": "alice", "exp": %d}`, scope != "", scope, time.Now().Add(time.Hour).Unix())
	})
	for _, c := range []struct {
		token  string
		status int
		header string
	}{
		{"good", 200, ""},
		{"poor", 403, `Bearer realm="restricted", error="insufficient_scope", error_description="the token's scope does not allow this", scope="orders"`},
		{"bad", 401, `Bearer realm="restricted", error="invalid_token", error_description="the token is not active"`},
		{"", 401, `Bearer realm="restricted"`},
	} {
		status, body, head := withToken(t, e, c.token)
		if status != c.status || head.Get("WWW-Authenticate") != c.header || status == 200 && strings.TrimSpace(body) != "alice" {
			t.Errorf("%q: %d %s %v, want %d %s", c.token, status, body, head, c.status, c.header)
		}
	}
	close(revoked)
	waitFor(t, func() bool { status, _, _ := withToken(t, e, "good"); return status == 401 }, func() string { return "a revoked token still passes" })
}

// TestSignedRequests by a shared secret, each of which counts once; and their bodies.
func TestSignedRequests(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	e := startStandard(t, "signature", fmt.Sprintf(`{"nonce": true, "keys": [{"id": "till-1", "consumer": "till", "algorithm": "hmac-sha256", "secret": %q}]}`,
		base64.StdEncoding.EncodeToString(secret)), http.NotFound)
	send := func(nonce, signed, sent string) (int, string) {
		req := newRequest(t, "POST", e.url("/orders?n=1"), strings.NewReader(sent))
		sum := sha256.Sum256([]byte(signed))
		digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
		params := fmt.Sprintf(`("@method" "@authority" "@path" "@query" "content-digest");created=%d;keyid="till-1";nonce=%q`, time.Now().Unix(), nonce)
		base := fmt.Sprintf("\"@method\": POST\n\"@authority\": %s\n\"@path\": /orders\n\"@query\": ?n=1\n\"content-digest\": %s\n\"@signature-params\": %s", req.URL.Host, digest, params)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(base))
		req.Header.Set("Content-Digest", digest)
		req.Header.Set("Signature-Input", "sig="+params)
		req.Header.Set("Signature", "sig=:"+base64.StdEncoding.EncodeToString(mac.Sum(nil))+":")
		resp, body := do(t, http.DefaultClient, req)
		return resp.StatusCode, body
	}
	for _, c := range []struct {
		name, nonce, signed, sent string
		status                    int
		body                      string
	}{
		{"a signed request", "1", "hello", "hello", 200, "till hello"},
		{"the same again", "1", "hello", "hello", 401, "It was used before"},
		{"another nonce", "2", "hello", "hello", 200, "till hello"},
		{"another body", "3", "hello", "hellO", 401, "the body is not that of the Content-Digest"},
	} {
		if status, body := send(c.nonce, c.signed, c.sent); status != c.status || !strings.Contains(strings.ToLower(body), strings.ToLower(c.body)) {
			t.Errorf("%s: %d %q, want %d %q", c.name, status, body, c.status, c.body)
		}
	}
}
