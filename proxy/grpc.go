package proxy

import (
	"bytes"
	"strconv"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Statuses of gRPC that Weir answers with.
const (
	grpcUnknown          = 2
	grpcDeadlineExceeded = 4
	grpcPermissionDenied = 7
	grpcUnimplemented    = 12
	grpcInternal         = 13
	grpcUnavailable      = 14
	grpcUnauthenticated  = 16
)

// grpcStatus is what clients of gRPC make of an HTTP status that comes in the
// place of theirs (gRPC's http-grpc-status-mapping.md).
func grpcStatus(status int) int {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// answerGRPC makes the response one of gRPC without a message: its status stands
// in the head (Trailers-Only).
func (e *Error) answerGRPC(x *exchange.Exchange) {
	status := grpcStatus(e.Status)
	if own := callDeadline(x); e.Status == 504 && !own.IsZero() && !time.Now().Before(own) {
		status = grpcDeadlineExceeded // the time was the client's to give
	}
	x.Answer(200, nil)
	x.Details = e.Code
	fields := &x.Response.Fields
	fields.Add([]byte("Content-Type"), x.Request.Fields.Get("content-type")) // clients compare
	fields.Add([]byte("Grpc-Status"), x.Copy(strconv.Itoa(status)))
	fields.Add([]byte("Grpc-Message"), x.CopyBytes(appendGRPCMessage(nil, e.Detail)))
}

// shapeForGRPC gives the answer of a policy to a call of gRPC the form that its
// client understands, unless it has that already.
func shapeForGRPC(x *exchange.Exchange) {
	r := &x.Response
	if !x.Request.IsGRPC() || r.Status == 200 || r.Fields.Has("grpc-status") {
		return
	}
	status := r.Status
	r.Status, r.Body = 200, nil
	r.Fields.Del("content-length")
	r.Fields.Set([]byte("Content-Type"), x.Request.Fields.Get("content-type"))
	r.Fields.Set([]byte("Grpc-Status"), x.Copy(strconv.Itoa(grpcStatus(status))))
	r.Fields.Set([]byte("Grpc-Message"), x.CopyBytes(appendGRPCMessage(nil, exchange.Reason(status))))
}

// appendGRPCMessage writes a message as gRPC puts it into a field: everything but
// printable ASCII, and the percent sign, as percent and two digits.
func appendGRPCMessage(dst []byte, message string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(message) {
		if c := message[i]; c >= ' ' && c <= '~' && c != '%' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// callDeadline is when the client of a call gives up; zero: never, or it is no
// call of gRPC.
func callDeadline(x *exchange.Exchange) time.Time {
	value := x.Request.Fields.Get("grpc-timeout")
	if value == nil || !x.Request.IsGRPC() {
		return time.Time{}
	}
	d, ok := parseGRPCTimeout(bytes.TrimSpace(value))
	if !ok {
		return time.Time{}
	}
	return x.Start.Add(d)
}

// parseGRPCTimeout reads up to eight digits and a unit.
func parseGRPCTimeout(value []byte) (time.Duration, bool) {
	const longest = 365 * 24 * time.Hour
	n := len(value) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	var unit time.Duration
	switch value[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	count, err := strconv.ParseUint(string(value[:n]), 10, 32)
	if unit == 0 || err != nil {
		return 0, false
	}
	if time.Duration(count) > longest/unit {
		return longest, true
	}
	return time.Duration(count) * unit, true
}
