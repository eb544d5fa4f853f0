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
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// over is what the load speaks to a proxy.
type over string

const (
	plain     over = ""
	overTLS   over = "tls"   // HTTP/1.1
	overKey   over = "keyed" // HTTP/1.1 in the clear, with a key
	overHTTP2 over = "http2"
	overHTTP3 over = "http3"
	overGRPC  over = "grpc" // by HTTP/2 in the clear, the upstream too
)

// streamsEach is how many requests share a connection where they can, so that
// handshakes, which are no part of the question, are few.
const streamsEach = 8

// benchHost is the name that certificates are for.
const benchHost = "bench.example"

// share is how many loops have a connection together.
func (o over) share() int {
	if o == plain || o == overTLS || o == overKey {
		return 1
	}
	return streamsEach
}

// client asks for one thing at a time, on a connection that other loops may use,
// too.
type client interface {
	// ask wants the answer 200, and reads all of it.
	ask(ctx context.Context) error
	Close() error
}

// dial connects to a proxy. requests are what HTTP/1.1 asks for, from at on.
func (o over) dial(address string, requests [][]byte, at int) (client, error) {
	switch o {
	case overHTTP2:
		return newHTTP2(address), nil
	case overHTTP3:
		return newHTTP3(address), nil
	case overGRPC:
		return newGRPC(address)
	case overTLS:
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", address, clientTLS("http/1.1"))
		if err != nil {
			return nil, err
		}
		return newHTTP1(c, requests, at)
	}
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	if o == overKey {
		requests = keyed(requests)
	}
	return newHTTP1(c, requests, at)
}

// benchKey is the key of the App that calls.
const benchKey = "weir_bench"

// keyed are requests that bear it.
func keyed(requests [][]byte) [][]byte {
	bearing := make([][]byte, len(requests))
	for i, r := range requests {
		bearing[i] = fmt.Appendf(nil, "%sx-api-key: %s\r\n\r\n", r[:len(r)-2], benchKey)
	}
	return bearing
}

func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: benchHost, NextProtos: protocols}
}

// try asks once.
func (o over) try(ctx context.Context, address, host string) error {
	c, err := o.dial(address, [][]byte{getRequest(address, host)}, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.ask(ctx)
}

// viaTransport asks by net/http's means.
type viaTransport struct {
	http.RoundTripper
	request *http.Request
	close   func() error
}

func newHTTP2(address string) client {
	t := &http.Transport{TLSClientConfig: clientTLS("h2"), DisableCompression: true, Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	t.Protocols.SetHTTP2(true)
	return &viaTransport{t, getByName(), func() error { t.CloseIdleConnections(); return nil }}
}

func newHTTP3(address string) client {
	t := &http3.Transport{TLSClientConfig: clientTLS(), DisableCompression: true,
		Dial: func(ctx context.Context, _ string, config *tls.Config, c *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, address, config, c)
		}}
	return &viaTransport{t, getByName(), t.Close}
}

func getByName() *http.Request {
	request, err := http.NewRequest(http.MethodGet, "https://"+benchHost+"/books/17?page=2", nil)
	if err != nil {
		panic(err) // it is a constant
	}
	return request
}

func (v *viaTransport) Close() error { return v.close() }

func (v *viaTransport) ask(ctx context.Context) error {
	response, err := v.RoundTrip(v.request.Clone(ctx))
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

// certificate leaves a certificate and its key in the place.
func (p place) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{benchHost}, NotAfter: time.Now().Add(24 * time.Hour)}
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
