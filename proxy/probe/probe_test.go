package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	quichttp3 "github.com/quic-go/quic-go/http3"

	"github.com/weirmesh/weir/proxy/health"
	"github.com/weirmesh/weir/proxy/http2"
	"github.com/weirmesh/weir/proxy/http3"
	"github.com/weirmesh/weir/proxy/probe"
	"github.com/weirmesh/weir/proxy/proxyproto"
	"github.com/weirmesh/weir/proxy/upstream"
)

func newPools(t *testing.T) *upstream.Registry {
	pools := upstream.NewRegistry(map[upstream.Protocol]upstream.Dial{upstream.HTTP2: http2.Dial, upstream.HTTP3: http3.Dial})
	t.Cleanup(func() {
		if kept := pools.Stats(); len(kept) > 0 {
			t.Errorf("kept are %v", kept)
		}
		pools.Close()
	})
	return pools
}

// asked puts a question to an address. It fails unless that is well, or what is
// wrong with it is what is wanted.
func asked(t *testing.T, q *probe.Question, address, wrong string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	switch err := q.Ask(ctx, address); {
	case err == nil && wrong != "":
		t.Errorf("it is taken to be well, not %q", wrong)
	case err != nil && (wrong == "" || !strings.Contains(err.Error(), wrong)):
		t.Errorf("got %v, want %q", err, wrong)
	}
}

func nobody(t *testing.T) string {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	return closed.Addr().String()
}

var only200 = []probe.Range{{Start: 200, End: 201}}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/host" && r.Host == "books.internal":
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case r.URL.Path == "/query" && r.URL.RawQuery == "deep=1":
		case r.URL.Path == "/agent" && r.UserAgent() == "weir-health-check":
		case r.URL.Path == "/large":
			w.Write(make([]byte, 1<<20))
		case r.URL.Path != "/":
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer s.Close()
	up, down := s.Listener.Addr().String(), nobody(t)
	pools := newPools(t)
	for _, c := range []struct {
		name, address string
		http          *probe.HTTP
		wrong         string
	}{
		{"TCP", up, nil, ""},
		{"nobody listens", down, nil, "refused"},
		{"nobody listens to HTTP", down, &probe.HTTP{Path: "/", Expected: only200}, "refused"},
		{"200", up, &probe.HTTP{Path: "/", Expected: only200}, ""},
		{"a status that is not expected", up, &probe.HTTP{Path: "/x", Expected: only200}, "it answers 418"},
		{"one that is", up, &probe.HTTP{Path: "/x", Expected: []probe.Range{{Start: 200, End: 201}, {Start: 418, End: 419}}}, ""},
		{"the end is not in the range", up, &probe.HTTP{Path: "/x", Expected: []probe.Range{{Start: 200, End: 418}}}, "418"},
		{"a host of its own", up, &probe.HTTP{Path: "/host", Host: "books.internal", Expected: only200}, ""},
		{"the wrong host", up, &probe.HTTP{Path: "/host", Expected: only200}, "418"},
		{"a query", up, &probe.HTTP{Path: "/query?deep=1", Expected: only200}, ""},
		{"it says who asks", up, &probe.HTTP{Path: "/agent", Expected: only200}, ""},
		{"redirects are answers", up, &probe.HTTP{Path: "/moved", Expected: only200}, "it answers 302"},
		{"a body is not waited for", up, &probe.HTTP{Path: "/large", Expected: only200}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { asked(t, &probe.Question{Pools: pools, HTTP: c.http}, c.address, c.wrong) })
	}
}

// trust is the TLS with which a test server is asked.
func trust(s *httptest.Server) upstream.TLS {
	return upstream.TLS{On: true, ServerName: "example.com", Authorities: string(s.Certificate().Raw)}
}

func secureServer(t *testing.T, protocol upstream.Protocol, clients tls.ClientAuthType, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = protocol == upstream.HTTP2
	s.TLS = &tls.Config{ClientAuth: clients}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// The service's TLS is the check's: who it must be, who asks.
func TestTLS(t *testing.T) {
	pools := newPools(t)
	for _, protocol := range []upstream.Protocol{upstream.HTTP1, upstream.HTTP2} {
		s := secureServer(t, protocol, tls.RequestClientCert, func(w http.ResponseWriter, r *http.Request) {
			known := len(r.TLS.PeerCertificates) > 0
			if r.TLS.ServerName != "example.com" || r.Host != "example.com" || r.URL.Path == "/known" && !known {
				w.WriteHeader(http.StatusForbidden)
			}
		})
		good := trust(s)
		wrongName, noAuthority, shown := good, good, good
		wrongName.ServerName, noAuthority.Authorities = "other.example", ""
		shown.Chain, shown.Key = ownCertificate(t)
		for _, c := range []struct {
			name  string
			tls   upstream.TLS
			path  string
			wrong string
		}{
			{"good", good, "/", ""},
			{"a name that it is not", wrongName, "/", "certificate"},
			{"an authority that is not trusted", noAuthority, "/", "certificate"},
			{"in the clear", upstream.TLS{}, "/", "answer"},
			{"a client that is not known", good, "/known", "it answers 403"},
			{"a client certificate", shown, "/known", ""},
		} {
			t.Run(protocol.String()+": "+c.name, func(t *testing.T) {
				key := upstream.Key{Protocol: protocol, TLS: c.tls}
				if !c.tls.On && protocol == upstream.HTTP1 {
					c.wrong = "it answers 400" // net/http says so in the clear
				} else if !c.tls.On {
					c.wrong = "connect to" // what comes is no HTTP/2
				}
				asked(t, &probe.Question{Pools: pools, Key: key, HTTP: &probe.HTTP{Path: c.path, Expected: only200}}, s.Listener.Addr().String(), c.wrong)
			})
			t.Run(protocol.String()+" is let in: "+c.name, func(t *testing.T) {
				if c.tls.On && c.path == "/" {
					asked(t, &probe.Question{Pools: pools, Key: upstream.Key{Protocol: protocol, TLS: c.tls}}, s.Listener.Addr().String(), c.wrong)
				}
			})
		}
	}
}

func ownCertificate(t *testing.T) (chain, key string) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	own := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(own.Certificate[0]), string(der)
}

func TestHTTP2InTheClear(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.URL.Path == "/ill" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	q := &probe.Question{Pools: newPools(t), Key: upstream.Key{Protocol: upstream.HTTP2}, HTTP: &probe.HTTP{Path: "/", Expected: only200}}
	asked(t, q, s.Listener.Addr().String(), "")
	q.HTTP.Path = "/ill"
	asked(t, q, s.Listener.Addr().String(), "it answers 503")
	asked(t, q, nobody(t), "refused")
}

func TestHTTP3(t *testing.T) {
	identity := secureServer(t, upstream.HTTP1, tls.NoClientCert, nil) // whose certificate is borrowed
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &quichttp3.Server{TLSConfig: &tls.Config{Certificates: identity.TLS.Certificates},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 3 || r.URL.Path == "/ill" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(socket) }) // until it is closed
	defer done.Wait()
	defer socket.Close()
	defer server.Close()
	address := socket.LocalAddr().String()
	q := &probe.Question{Pools: newPools(t), Key: upstream.Key{Protocol: upstream.HTTP3, TLS: trust(identity)}, HTTP: &probe.HTTP{Path: "/", Expected: only200}}
	asked(t, q, address, "")
	q.HTTP.Path = "/ill"
	asked(t, q, address, "it answers 503")
	q.HTTP = nil
	asked(t, q, address, "")
	q.Key.TLS.ServerName = "other.example"
	asked(t, q, address, "certificate")
}

// Where connections begin with who the client is, a check's says that it is
// nobody's.
func TestPROXYProtocol(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := make(chan string, 1)
	go func() { // ends with the one connection
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		for !strings.Contains(string(b[:n]), "\r\n\r\n") {
			m, err := c.Read(b[n:])
			if n += m; err != nil {
				break
			}
		}
		said <- string(b[:n])
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}()
	asked(t, &probe.Question{Pools: newPools(t), Key: upstream.Key{Proxy: proxyproto.V1}, HTTP: &probe.HTTP{Path: "/", Expected: only200}}, l.Addr().String(), "")
	if got := <-said; !strings.HasPrefix(got, "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n") {
		t.Errorf("it was said %q", got)
	}
}

// An endpoint that accepts and says nothing is given up in time.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pools := newPools(t)
	secure := upstream.Key{Protocol: upstream.HTTP2, TLS: upstream.TLS{On: true, Insecure: true}}
	for name, q := range map[string]*probe.Question{
		"HTTP/1.1": {Pools: pools, HTTP: &probe.HTTP{Path: "/", Expected: only200}},
		"HTTP/2":   {Pools: pools, Key: secure, HTTP: &probe.HTTP{Path: "/", Expected: only200}},
		"gRPC":     {Pools: pools, Key: secure, GRPC: &probe.GRPC{}},
		"TLS":      {Pools: pools, Key: secure},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := q.Ask(ctx, l.Addr().String()); err == nil {
				t.Error("it is taken to be well")
			}
		})
	}
}

// Checks that are declared again go on as they are, unless they ask something else.
func TestEqual(t *testing.T) {
	pools := newPools(t)
	ask := func() *probe.Question {
		return &probe.Question{Pools: pools, Key: upstream.Key{Protocol: upstream.HTTP2, TLS: upstream.TLS{On: true, Authorities: "x"}},
			HTTP: &probe.HTTP{Path: "/", Expected: []probe.Range{{Start: 200, End: 300}}}}
	}
	if !ask().Equal(ask()) {
		t.Error("the same is not equal")
	}
	for name, change := range map[string]func(*probe.Question){
		"protocol":    func(q *probe.Question) { q.Key.Protocol = upstream.HTTP3 },
		"certificate": func(q *probe.Question) { q.Key.TLS.Chain = "y" },
		"path":        func(q *probe.Question) { q.HTTP.Path = "/x" },
		"statuses":    func(q *probe.Question) { q.HTTP.Expected = nil },
		"kind":        func(q *probe.Question) { q.HTTP, q.GRPC = nil, &probe.GRPC{} },
	} {
		q := ask()
		if change(q); q.Equal(ask()) || ask().Equal(q) {
			t.Errorf("with another %s it is equal", name)
		}
	}
	call := &probe.Question{GRPC: &probe.GRPC{Service: "a"}}
	if !call.Equal(&probe.Question{GRPC: &probe.GRPC{Service: "a"}}) || call.Equal(&probe.Question{GRPC: &probe.GRPC{Service: "b"}}) {
		t.Error("calls are not told apart")
	}
	var _ health.Question = call
}
