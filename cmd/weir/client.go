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
	"syscall"

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
	flags.StringVar(&c.admin, "admin", defaultAdmin, "address of the admin API: HOST[:PORT], with or without http:// or https:// (WEIR_ADMIN)")
	flags.StringVar(&c.token, "token", "", "token to show to the admin API (WEIR_TOKEN)")
	flags.StringVar(&c.ca, "ca", "", "certificates to trust: a PEM file, or PEM itself; implies https (WEIR_CA)")
	flags.StringVar(&c.tenant, "tenant", "", "whose declarations; \"*\" reads all (WEIR_TENANT) (default \"default\")")
}

// connect returns a client of the admin API. Nothing is sent yet.
func (c *client) connect(stderr io.Writer) (weirv1connect.AdminServiceClient, error) {
	base, err := baseURL(c.admin, c.ca != "")
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if base.Scheme == "https" {
		roots, err := readRoots(c.ca)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	} else if c.token != "" && !isLocal(base.Hostname()) {
		fmt.Fprintf(stderr, "warning: the token goes to %s in the clear; use https:// and --ca\n", base.Host)
	}
	httpClient := &http.Client{Transport: &authorized{c.token, transport}}
	return weirv1connect.NewAdminServiceClient(connect.NewClient(
		connecthttp.NewTransport(httpClient, base.String(), connecthttp.WithReadMaxBytes(maxAnswer)), c.reachable(base))), nil
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

// reachable notes, in errors of calls that reached nobody, whom they were for.
func (c *client) reachable(base *url.URL) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			stream, err := next(ctx, spec)
			if err != nil {
				return nil, unreachable(base, err)
			}
			return &knownStream{stream, base}, nil
		}
	}
}

type knownStream struct {
	connect.ClientStream
	base *url.URL
}

func (s *knownStream) Send(m any) error    { return unreachable(s.base, s.ClientStream.Send(m)) }
func (s *knownStream) CloseSend() error    { return unreachable(s.base, s.ClientStream.CloseSend()) }
func (s *knownStream) Receive(m any) error { return unreachable(s.base, s.ClientStream.Receive(m)) }

// unreachableError is a call that nobody heard, and what may help.
type unreachableError struct {
	base *url.URL
	err  error
	hint string
}

func (e *unreachableError) Error() string {
	cause := e.err.Error()
	var call *connect.Error
	var operation *net.OpError
	switch {
	case errors.As(e.err, &operation):
		cause = operation.Err.Error()
	case errors.As(e.err, &call):
		cause = call.Message()
	}
	return fmt.Sprintf("cannot reach the admin API at %s: %s", e.base, cause)
}

func (e *unreachableError) Unwrap() error { return e.err }

// unreachable leaves alone what a server has answered, and the end of a stream.
func unreachable(base *url.URL, err error) error {
	var answered *connect.Error
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &answered) && answered.IsRemote() {
		return err
	}
	found := &unreachableError{base: base, err: err}
	var authority x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var name *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		found.hint = "is \"weir dev\" running? Else say where with --admin or WEIR_ADMIN"
	case errors.As(err, &authority):
		found.hint = "say whom to trust with --ca or WEIR_CA (the server's DATA/admin.env sets it)"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		found.hint = "the server does not speak TLS there; try http://" + base.Host
	case errors.As(err, &name):
		found.hint = "check the host name in --admin or WEIR_ADMIN"
	default:
		return err
	}
	return found
}

// baseURL reads an address as people write it.
func baseURL(address string, secure bool) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		address = scheme + address
	}
	base, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" || base.Path != "" || base.RawQuery != "" {
		return nil, usagef("--admin %q is not an address such as %s or https://weir.example:7401", address, defaultAdmin)
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

// list reads all pages.
func list(ctx context.Context, api weirv1connect.AdminServiceClient, req *weirv1.ListRequest) ([]*weirv1.Resource, error) {
	var all []*weirv1.Resource
	for {
		page, err := api.List(ctx, req)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetResources()...)
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			return all, nil
		}
	}
}
