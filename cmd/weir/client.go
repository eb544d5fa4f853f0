package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/spf13/pflag"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proto/weir/v1/weirv1connect"
)

const (
	defaultAdmin = "127.0.0.1:7401"
	adminPort    = "7401"
	// maxAnswer bounds what a server may answer with; a page of 1,000 of the
	// biggest resources is this much.
	maxAnswer = 256 << 20
)

// client is the connection that the flags describe.
type client struct {
	admin, token, ca, tenant string
}

func (c *client) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.admin, "admin", defaultAdmin, "addresses of the admin API: HOST[:PORT][,HOST[:PORT]…], with or without http:// or https://; the next is asked when one does not answer (WEIR_ADMIN)")
	flags.StringVar(&c.token, "token", "", "token to show to the admin API (WEIR_TOKEN)")
	flags.StringVar(&c.ca, "ca", "", "certificates to trust: a PEM file, or PEM itself; implies https (WEIR_CA)")
	flags.StringVar(&c.tenant, "tenant", "", "whose declarations; \"*\" reads all (WEIR_TENANT) (default \"default\")")
}

// session is what can be asked: what is declared, and the servers themselves.
type session struct {
	weirv1connect.AdminServiceClient
	cluster weirv1connect.ClusterServiceClient
	usage   weirv1connect.UsageServiceClient
}

// connect returns a client of the admin API. Nothing is sent yet.
func (c *client) connect(stderr io.Writer) (*session, error) {
	bases, err := baseURLs(c.admin, c.ca != "")
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(c.ca)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if len(bases) > 1 {
		transport.DialContext = (&net.Dialer{Timeout: patience}).DialContext
		transport.TLSHandshakeTimeout = patience
	}
	httpClient := &http.Client{Transport: &authorized{c.token, transport}}
	all := new(failover)
	for _, base := range bases {
		if base.Scheme == "http" && c.token != "" && !isLocal(base.Hostname()) {
			fmt.Fprintf(stderr, "warning: the token goes to %s in the clear; use https:// and --ca\n", base.Host)
		}
		all.servers = append(all.servers, server{base, connecthttp.NewTransport(httpClient, base.String(), connecthttp.WithReadMaxBytes(maxAnswer))})
	}
	client := connect.NewClient(all)
	return &session{weirv1connect.NewAdminServiceClient(client), weirv1connect.NewClusterServiceClient(client), weirv1connect.NewUsageServiceClient(client)}, nil
}

// authorized shows the token with each request.
type authorized struct {
	token string
	next  http.RoundTripper
}

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	return a.next.RoundTrip(r)
}

// baseURLs reads addresses with commas between them.
func baseURLs(addresses string, secure bool) ([]*url.URL, error) {
	var bases []*url.URL
	for address := range strings.SplitSeq(addresses, ",") {
		base, err := baseURL(strings.TrimSpace(address), secure)
		if err != nil {
			return nil, err
		}
		bases = append(bases, base)
	}
	return bases, nil
}

// baseURL reads an address as people write it.
func baseURL(address string, secure bool) (*url.URL, error) {
	given := address
	if !strings.Contains(address, "://") {
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		address = scheme + address
	}
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.Path != "" || base.RawQuery != "" {
		return nil, usagef("--admin %q is not an address such as %s or https://weir.example:7401", given, defaultAdmin)
	}
	if base.Port() == "" {
		base.Host = net.JoinHostPort(base.Hostname(), adminPort)
	}
	return base, nil
}

func isLocal(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// readRoots reads PEM, or the file of that name; nil means the system's.
func readRoots(ca string) (*x509.CertPool, error) {
	if ca == "" {
		return nil, nil
	}
	pem := []byte(ca)
	if !strings.Contains(ca, "-----BEGIN") {
		var err error
		if pem, err = os.ReadFile(ca); err != nil {
			return nil, fmt.Errorf("read --ca: %w", err)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("read --ca: there is no PEM certificate in it")
	}
	return roots, nil
}

// listAll reads all pages; with them comes the last page, for what it says of
// all of them.
func listAll(ctx context.Context, api weirv1connect.AdminServiceClient, req *weirv1.ListRequest) ([]*weirv1.Resource, *weirv1.ListResponse, error) {
	var all []*weirv1.Resource
	for {
		page, err := api.List(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, page.GetResources()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all, page, nil
		}
	}
}
