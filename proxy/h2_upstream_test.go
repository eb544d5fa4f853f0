package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// h2Server is net/http's HTTP/2, by TLS with a certificate of its own or in the
// clear, as a service.
func h2Server(t testing.TB, secure bool, h http.HandlerFunc) *weirv1.Service {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(secure)
	protocols.SetUnencryptedHTTP2(!secure)
	server.Config.Protocols = protocols
	server.EnableHTTP2 = secure
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	s := service("s", server.Listener.Addr().String())
	s.Spec.Protocol = weirv1.ServiceSpec_HTTP2
	if secure {
		s.Spec.Tls = &weirv1.UpstreamTLS{Hostname: "example.com", CaCertificates: pemOf(server.Certificate().Raw)}
	}
	return s
}

func pemOf(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// crossings runs a test with clients of each protocol and services of each.
func crossings(t *testing.T, h http.HandlerFunc, change func(*weirv1.RouteRule), test func(t *testing.T, client *http.Client, base string)) {
	for _, up := range []string{"HTTP/1.1", "HTTP/1.1 by TLS", "HTTP/2", "HTTP/2 by TLS", "HTTP/3"} {
		for _, down := range []string{"HTTP/1.1", "HTTP/2", "HTTP/3"} {
			t.Run(down+" to "+up, func(t *testing.T) {
				var s *weirv1.Service
				secure := strings.HasSuffix(up, "TLS")
				if up == "HTTP/3" {
					s = h3Server(t, h)
				} else if strings.HasPrefix(up, "HTTP/2") {
					s = h2Server(t, secure, h)
				} else if s = service("s", upstreamServer(t, h)); secure {
					server := httptest.NewTLSServer(h)
					t.Cleanup(server.Close)
					s = service("s", server.Listener.Addr().String())
					s.Spec.Tls = &weirv1.UpstreamTLS{Hostname: "example.com", CaCertificates: pemOf(server.Certificate().Raw)}
				}
				e := startEdge(t, s, route("r", "/", "s", change))
				client, base := e.h2Client(false), "http://shop.example"
				switch down {
				case "HTTP/3":
					e.apply(certificate(t, "shop", "shop.example"), gateway(secureListener("https", "", nil, "shop")))
					client, base = e.h3Client(), "https://shop.example"
				case "HTTP/1.1":
					transport := &http.Transport{DisableCompression: true}
					t.Cleanup(transport.CloseIdleConnections)
					client, base = &http.Client{Transport: transport}, e.url("")
				}
				test(t, client, base)
			})
		}
	}
}

func asIs(*weirv1.RouteRule) {}

// A request and its answer are the same whatever protocols carry them.
func TestCrossings(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %d %s.", r.Method, r.URL.RequestURI(), r.Header.Get("X-Field"), r.ContentLength, r.Trailer.Get("X-Sum")))
		w.Header().Set("Trailer", "X-After")
		switch {
		case r.URL.Path == "/nothing":
			w.WriteHeader(http.StatusNoContent)
			return
		case r.URL.Path == "/stream":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		w.Write(body)
		w.Header().Set("X-After", "after")
	}
	crossings(t, h, asIs, func(t *testing.T, client *http.Client, base string) {
		for _, size := range []int{0, 1, 4096, 100_000, 3 << 20} {
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			req := newRequest(t, "PUT", base+"/stream?q=1", bytes.NewReader(data))
			req.Header.Set("X-Field", "v")
			resp, body := do(t, client, req)
			if want := fmt.Sprintf("PUT /stream?q=1 v %d .", size); resp.StatusCode != 200 || resp.Header.Get("X-Seen") != want {
				t.Fatalf("%d bytes: got %s, saw %q, want %q", size, resp.Status, resp.Header.Get("X-Seen"), want)
			}
			if body != string(data) || resp.Trailer.Get("X-After") != "after" {
				t.Fatalf("%d bytes: got %d back, trailers %v", size, len(body), resp.Trailer)
			}
		}
		req := newRequest(t, "POST", base+"/", opaque{strings.NewReader("hello")})
		req.Trailer = http.Header{"X-Sum": {"5"}}
		if resp, body := do(t, client, req); resp.Header.Get("X-Seen") != "POST /  -1 5." || body != "hello" {
			t.Errorf("got %s, %v, %q", resp.Status, resp.Header, body)
		}
		if resp, _ := do(t, client, newRequest(t, "GET", base+"/nothing", nil)); resp.StatusCode != 204 {
			t.Errorf("got %s", resp.Status)
		}
		if resp, body := do(t, client, newRequest(t, "HEAD", base+"/", nil)); resp.StatusCode != 200 || body != "" {
			t.Errorf("HEAD: got %s, %q", resp.Status, body)
		}
	})
}

// Interim answers come before the final one; 100 is between neighbours.
func TestInterimAnswersCross(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Link", "</more.css>; rel=preload")
		w.WriteHeader(http.StatusProcessing)
		w.Header().Del("Link")
		w.Write([]byte("done"))
	}
	crossings(t, h, asIs, func(t *testing.T, client *http.Client, base string) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, " ", header.Get("Link")))
			return nil
		}})
		resp, body := do(t, client, newRequest(t, "GET", base+"/", nil).WithContext(ctx))
		if resp.StatusCode != 200 || body != "done" || resp.Header.Get("Link") != "" {
			t.Errorf("got %s, %q, %v", resp.Status, body, resp.Header)
		}
		if want := "103 </style.css>; rel=preload,102 </more.css>; rel=preload"; strings.Join(got, ",") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	})
}

// Both sides may speak at the same time, for as long as they like.
func TestFullDuplexCrosses(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	}
	crossings(t, h, asIs, func(t *testing.T, client *http.Client, base string) {
		pr, pw := io.Pipe()
		resp, err := client.Do(newRequest(t, "POST", base+"/", pr))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, 100)
		for i := range 50 {
			word := fmt.Sprintf("word %d", i)
			fmt.Fprint(pw, word)
			if _, err := io.ReadFull(resp.Body, buf[:len(word)]); err != nil || string(buf[:len(word)]) != word {
				t.Fatalf("got %q, %v; want %q", buf[:len(word)], err, word)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v", rest, err)
		}
	})
}

// A client that leaves takes its request with it.
func TestCancellationReachesTheService(t *testing.T) {
	left := make(chan struct{}, 1)
	h := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	}
	crossings(t, h, asIs, func(t *testing.T, client *http.Client, base string) {
		if base != "http://shop.example" {
			return // over HTTP/1.1 one is noticed to be gone once one is sent something
		}
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := client.Do(newRequest(t, "GET", base+"/", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		resp.Body.Close()
		select {
		case <-left:
		case <-time.After(2 * time.Minute):
			t.Error("the service was not told")
		}
	})
}

// Many exchanges share one connection, and more connections are made only where
// one has no room.
func TestConnectionsAreShared(t *testing.T) {
	var mu sync.Mutex
	var peers = map[string]bool{}
	all := make(chan struct{})
	count := 0
	s := h2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		peers[r.RemoteAddr] = true
		if count++; count == 40 {
			close(all)
		}
		mu.Unlock()
		<-all
	})
	e := startEdge(t, s, route("r", "/", "s"))
	client := e.h2Client(false)
	var done sync.WaitGroup
	for range 40 {
		done.Go(func() {
			resp, err := client.Get("http://shop.example/")
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	done.Wait()
	if len(peers) != 1 {
		t.Errorf("%d connections for 40 requests at once", len(peers))
	}
}

// Who the service must be, and who it is shown, is what tls says.
func TestUpstreamTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].DNSNames[0]
		}
		fmt.Fprintf(w, "%s asked %s", name, r.TLS.ServerName)
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.Config.ErrorLog = log.New(t.Output(), "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pemOf(server.Certificate().Raw)
	own := certificate(t, "own", "edge.example")
	authority := &weirv1.Certificate{Metadata: &weirv1.Metadata{Name: "ca"}, Material: &weirv1.CertificateMaterial{Chain: [][]byte{server.Certificate().Raw}}}
	for name, c := range map[string]struct {
		tls  *weirv1.UpstreamTLS
		want string
	}{
		"a name and its authority":        {&weirv1.UpstreamTLS{Hostname: "example.com", CaCertificates: ca}, "200 nobody asked example.com"},
		"the address is the name":         {&weirv1.UpstreamTLS{CaCertificates: ca}, "200 nobody asked "},
		"the authority of a Certificate":  {&weirv1.UpstreamTLS{Hostname: "example.com", CaCertificateRefs: []*weirv1.CertificateRef{{Name: "ca"}}}, "200 nobody asked example.com"},
		"another name in the certificate": {&weirv1.UpstreamTLS{Hostname: "other.example", CaCertificates: ca, SubjectAltNames: []string{"example.com"}}, "200 nobody asked other.example"},
		"a client certificate":            {&weirv1.UpstreamTLS{Hostname: "example.com", CaCertificates: ca, ClientCertificateRef: &weirv1.CertificateRef{Name: "own"}}, "200 edge.example asked example.com"},
		"whoever it is":                   {&weirv1.UpstreamTLS{Hostname: "other.example", InsecureSkipVerify: true}, "200 nobody asked other.example"},
		"the wrong name":                  {&weirv1.UpstreamTLS{Hostname: "other.example", CaCertificates: ca}, "503"},
		"none of the names":               {&weirv1.UpstreamTLS{Hostname: "example.com", CaCertificates: ca, SubjectAltNames: []string{"other.example"}}, "503"},
		"an authority that nobody trusts": {&weirv1.UpstreamTLS{Hostname: "example.com"}, "503"},
		"names without a good authority":  {&weirv1.UpstreamTLS{Hostname: "example.com", SubjectAltNames: []string{"example.com"}}, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			s := service("s", server.Listener.Addr().String())
			s.Spec.Tls = c.tls
			e := startEdge(t, own, authority, s, route("r", "/", "s"))
			for range 2 {
				resp, body := get(t, e.url("/"))
				if got := fmt.Sprint(resp.StatusCode, " ", body); !strings.HasPrefix(got, c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
			}
		})
	}
}

// A client certificate that is replaced is shown on the next connection.
func TestClientCertificateIsReplaced(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	s := service("s", server.Listener.Addr().String())
	s.Spec.Tls = &weirv1.UpstreamTLS{InsecureSkipVerify: true, ClientCertificateRef: &weirv1.CertificateRef{Name: "own"}}
	e := startEdge(t, certificate(t, "own", "first.example"), s, route("r", "/", "s"))
	if _, body := get(t, e.url("/")); body != "first.example" {
		t.Errorf("showed %s", body)
	}
	e.apply(certificate(t, "own", "second.example"))
	if _, body := get(t, e.url("/")); body != "second.example" {
		t.Errorf("showed %s", body)
	}
}
