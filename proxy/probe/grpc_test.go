package probe_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcserver "google.golang.org/grpc/health"
	grpchealth "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weirmesh/weir/proxy/probe"
	"github.com/weirmesh/weir/proxy/upstream"
)

// startGRPC starts grpc-go's own server, with its health service.
func startGRPC(t *testing.T, h grpchealth.HealthServer, opts ...grpc.ServerOption) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	if h != nil {
		grpchealth.RegisterHealthServer(s, h)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }() // until it is stopped
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	h := grpcserver.NewServer()
	h.SetServingStatus("shop.v1.Books", grpchealth.HealthCheckResponse_SERVING)
	h.SetServingStatus("shop.v1.Carts", grpchealth.HealthCheckResponse_NOT_SERVING)
	identity := secureServer(t, upstream.HTTP1, tls.NoClientCert, nil) // whose certificate is borrowed
	pools := newPools(t)
	for name, c := range map[string]struct {
		address string
		tls     upstream.TLS
	}{
		"h2c": {startGRPC(t, h), upstream.TLS{}},
		"TLS": {startGRPC(t, h, grpc.Creds(credentials.NewServerTLSFromCert(&identity.TLS.Certificates[0]))), trust(identity)},
	} {
		key := upstream.Key{Protocol: upstream.HTTP2, TLS: c.tls}
		for service, wrong := range map[string]string{
			"":              "",
			"shop.v1.Books": "",
			"shop.v1.Carts": "it is NOT_SERVING",
			"shop.v1.Nope":  `gRPC status "5": unknown service`,
		} {
			t.Run(name+": "+service, func(t *testing.T) {
				asked(t, &probe.Question{Pools: pools, Key: key, GRPC: &probe.GRPC{Service: service}}, c.address, wrong)
			})
		}
	}
	t.Run("it turns", func(t *testing.T) {
		address, q := startGRPC(t, h), &probe.Question{Pools: pools, Key: upstream.Key{Protocol: upstream.HTTP2}, GRPC: &probe.GRPC{}}
		asked(t, q, address, "")
		h.Shutdown()
		asked(t, q, address, "it is NOT_SERVING")
		h.Resume()
		asked(t, q, address, "")
	})
	t.Run("no health service", func(t *testing.T) {
		q := &probe.Question{Pools: pools, Key: upstream.Key{Protocol: upstream.HTTP2}, GRPC: &probe.GRPC{}}
		asked(t, q, startGRPC(t, nil), `gRPC status "12"`)
	})
}

// What is no answer of gRPC's says so.
func TestNotGRPC(t *testing.T) {
	pools := newPools(t)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		wrong  string
	}{
		"a web page": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<p>")) }, "which is not gRPC"},
		"no such":    {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "it answers 404"},
		"no status":  {grpcAnswer("\x00\x00\x00\x00\x02\x08\x01", ""), `gRPC status ""`},
		"half":       {grpcAnswer("\x00\x00\x00\x00\x02\x08", "0"), "not one message"},
		"two":        {grpcAnswer("\x00\x00\x00\x00\x02\x08\x01\x00\x00\x00\x00\x00", "0"), "not one message"},
		"compressed": {grpcAnswer("\x01\x00\x00\x00\x02\x08\x01", "0"), "not one message"},
		"nonsense":   {grpcAnswer("\x00\x00\x00\x00\x02\x08\xff", "0"), "read answer"},
		"unknown":    {grpcAnswer("\x00\x00\x00\x00\x00", "0"), "it is UNKNOWN"},
		"endless":    {grpcAnswer(string(make([]byte, 64<<10)), "0"), "too long"},
		"serving":    {grpcAnswer("\x00\x00\x00\x00\x02\x08\x01", "0"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := secureServer(t, upstream.HTTP2, tls.NoClientCert, c.answer)
			q := &probe.Question{Pools: pools, Key: upstream.Key{Protocol: upstream.HTTP2, TLS: trust(s)}, GRPC: &probe.GRPC{}}
			asked(t, q, s.Listener.Addr().String(), c.wrong)
		})
	}
}

func grpcAnswer(body, status string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Write([]byte(body))
		if status != "" {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
		}
	}
}
