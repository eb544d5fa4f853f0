package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// The rows of HTTP/3. The load is quic-go's for both; each request is one of
// streamsEach on its connection, so that handshakes, which are no part of the
// question, are few.
const (
	caddyHTTP3  = "Caddy HTTP/3"
	weirHTTP3   = "Weir HTTP/3"
	streamsEach = 8
	http3Host   = "bench.example"
)

// client3 is a connection of the load by HTTP/3.
type client3 struct {
	*http3.Transport
	address string
}

func dial3(address string) *client3 {
	return &client3{&http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: http3Host},
		Dial: func(ctx context.Context, _ string, tls *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, address, tls, cfg)
		},
		DisableCompression: true,
	}, address}
}

// get asks once, and wants 200.
func (c *client3) get(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+http3Host+"/books/17?page=2", nil)
	if err != nil {
		return err
	}
	response, err := c.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", response.Status)
	}
	return nil
}

// loop3 is loop by HTTP/3, on a connection that others use, too. A request that
// the end of the time has cut is none.
func (r *report) loop3(ctx context.Context, c *client3) error {
	last := time.Now()
	for ctx.Err() == nil {
		if err := c.get(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		now := time.Now()
		r.Latencies.Record(now.Sub(last))
		r.Requests++
		last = now
	}
	return nil
}

func tryGet3(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := dial3(address)
	defer c.Close()
	return c.get(ctx)
}

// startCaddyHTTP3 starts Caddy with a certificate that it need not ask anyone for.
func startCaddyHTTP3(_ context.Context, c *contender, p place) error {
	if err := p.certificate(); err != nil {
		return err
	}
	path, err := p.configure("Caddyfile", `
{
	admin off
	auto_https off
	servers {
		protocols h1 h2 h3
	}
}
https://`+http3Host+`:{PORT} {
	bind 127.0.0.1
	tls {DIR}/certificate.pem {DIR}/key.pem
	reverse_proxy {UPSTREAM} {
		transport http {
			keepalive_idle_conns_per_host 256
		}
	}
}
`)
	if err != nil {
		return err
	}
	return p.run(c, "caddy", "run", "--config", path, "--adapter", "caddyfile")
}

// certificate leaves a certificate and its key in the place.
func (p place) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{http3Host}, NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"certificate.pem": {Type: "CERTIFICATE", Bytes: certificate}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// overHTTP3 is the catch-all behind a listener that speaks HTTP/3.
func overHTTP3(ctx context.Context, w *weir) error {
	return w.apply(ctx, `
---
apiVersion: weir/v1
kind: Certificate
metadata: {name: bench}
spec: {hostnames: [`+http3Host+`], selfSigned: {}}
---
apiVersion: weir/v1
kind: Gateway
metadata: {name: public}
spec: {listeners: [{name: https, port: {PORT}, address: 127.0.0.1, protocol: HTTPS, tls: {certificateRefs: [{name: bench}]}}]}
`+catchAllRoute)
}
