package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"

	"connectrpc.com/connect/v2"
)

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
	case errors.Is(err, syscall.ECONNREFUSED) && base.Host != defaultAdmin:
		found.hint = "see that the server runs, and that this is the address of its --admin; else say where with --admin or WEIR_ADMIN"
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
