package admin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// trusting is a client's side of startTLS.
var trusting = &tls.Config{InsecureSkipVerify: true}

// startTLS serves as a member of a cluster does: HTTP/2 is then our own.
func startTLS(t *testing.T) (*api, *http.Transport) {
	t.Helper()
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	t.Cleanup(certified.Close)
	transport := &http.Transport{TLSClientConfig: trusting.Clone(), ForceAttemptHTTP2: true}
	a := startOn(t, "https://", &tls.Config{Certificates: certified.TLS.Certificates}, transport, nil)
	return a, transport
}

func TestJSONOverTLS(t *testing.T) {
	a, newer := startTLS(t)
	older := &http.Transport{TLSClientConfig: trusting.Clone()}
	defer older.CloseIdleConnections()
	for protocol, transport := range map[string]*http.Transport{"HTTP/1.1": older, "HTTP/2.0": newer} {
		for _, c := range []struct {
			method, body string
			code         int
			want         string
		}{
			{"Apply", `{"resources": [{"kind": "Service", "metadata": {"name": "books"}}]}`, 200, `"books"`},
			{"Get", `{"ref": {"kind": "Service", "name": "books"}}`, 200, `"books"`},
			{"Get", `{"ref": {"kind": "Service", "name": "x"}}`, 404, `there is no Service x`},
			{"Get", `{"ref": {"kind": "` + strings.Repeat("x", 33<<20) + `"}}`, 429, `resource_exhausted`},
			{"Get", `{`, 400, `invalid_argument`},
		} {
			res, err := (&http.Client{Transport: transport}).Post("https://"+a.address+"/weir.v1.AdminService/"+c.method,
				"application/json", strings.NewReader(c.body))
			if err != nil {
				t.Fatalf("%s %s %.40s: %v", protocol, c.method, c.body, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.Proto != protocol || res.StatusCode != c.code || !strings.Contains(string(body), c.want) {
				t.Errorf("%s %s %.40s: got %s %d %s, %v", protocol, c.method, c.body, res.Proto, res.StatusCode, body, err)
			}
		}
	}
}

func TestGRPCOverTLS(t *testing.T) {
	a, _ := startTLS(t)
	a.apply(t, shop)
	conn, err := grpc.NewClient(a.address, grpc.WithTransportCredentials(credentials.NewTLS(trusting.Clone())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	list := new(weirv1.ListResponse)
	if err := conn.Invoke(t.Context(), "/weir.v1.AdminService/List", &weirv1.ListRequest{}, list); err != nil || len(list.GetResources()) != 3 {
		t.Errorf("got %v, %v", list, err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/weir.v1.AdminService/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&weirv1.WatchRequest{}); err != nil {
		t.Fatal(err)
	}
	for range 5 { // a reset, three resources and a bookmark
		if err := stream.RecvMsg(new(weirv1.WatchResponse)); err != nil {
			t.Fatal(err)
		}
	}
}

// What is large goes through whole in both directions.
func TestLargeCallsOverTLS(t *testing.T) {
	a, _ := startTLS(t)
	for i := range 100 {
		large := &weirv1.Service{Metadata: &weirv1.Metadata{
			Name: fmt.Sprintf("s%d", i), Annotations: map[string]string{"a": strings.Repeat("x", 200_000)},
		}}
		_, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{{Kind: &weirv1.Resource_Service{Service: large}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	a.push(t, &weirv1.PushPluginRequest{Name: "big", Module: module(40<<20, 1)})
	_, content, err := a.backup(t, &weirv1.BackupRequest{})
	if err != nil || len(content) < 60_000_000 {
		t.Fatalf("a backup of %d bytes, %v", len(content), err)
	}
	_, err = a.restore(t, &weirv1.RestoreOptions{}, content[:30_000_000])
	requireCode(t, err, connect.CodeInvalidArgument, "damaged")
	if _, err = a.restore(t, &weirv1.RestoreOptions{Force: true}, content); err != nil {
		t.Error(err)
	}
}

// Hundreds watch, over a few connections, and each gets all that there is. When
// they leave, the calls that are under way go on.
func TestManyWatchOverTLS(t *testing.T) {
	a, _ := startTLS(t)
	annotation := map[string]string{"a": string(bytes.Repeat([]byte("x"), 100_000))}
	large := &weirv1.Service{Metadata: &weirv1.Metadata{Name: "a", Annotations: annotation}}
	if _, err := a.Apply(t.Context(), &weirv1.ApplyRequest{Resources: []*weirv1.Resource{{Kind: &weirv1.Resource_Service{Service: large}}}}); err != nil {
		t.Fatal(err)
	}
	stays, err := a.Watch(t.Context(), &weirv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var watching, gone sync.WaitGroup
	for range 300 {
		watching.Add(1)
		gone.Go(func() {
			stream, err := a.Watch(ctx, &weirv1.WatchRequest{})
			if err != nil {
				t.Error(err)
				watching.Done()
				return
			}
			defer stream.Close()
			for range 3 {
				if _, err := stream.Receive(); err != nil {
					t.Error(err)
				}
			}
			watching.Done()
			for err == nil {
				_, err = stream.Receive()
			}
		})
	}
	watching.Wait()
	leave()
	gone.Wait()
	for range 3 {
		if _, err := stays.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	a.apply(t, shop)
	if _, err := stays.Receive(); err != nil {
		t.Errorf("who stayed: %v", err)
	}
}
