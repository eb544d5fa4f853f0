package handler

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/textproto"
	"net/url"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
)

// client is who is at the other end of a connection.
type client struct {
	handler http.Handler
	ctx     context.Context
	tls     *tls.ConnectionState
	address string
}

// place is where one call is served.
type place struct {
	client *client
	x      exchange.Exchange
	ctx    context.Context // of the call
	cancel context.CancelFunc
}

var _ http2.Talker = (*place)(nil)

// Exchange implements http2.Place.
func (p *place) Exchange() *exchange.Exchange { return &p.x }

// Begin implements http2.Place.
func (p *place) Begin() { p.ctx, p.cancel = context.WithCancel(p.client.ctx) }

// Cut implements http2.Place.
func (p *place) Cut() { p.cancel() }

// Serve implements http2.Place; Talk stands in for it.
func (p *place) Serve(x *exchange.Exchange) { p.Reject(x, http.StatusInternalServerError, "") }

// Reject implements http2.Place.
func (p *place) Reject(x *exchange.Exchange, status int, reason string) {
	x.Answer(status, []byte(reason))
}

// Finish implements http2.Place.
func (p *place) Finish(*exchange.Exchange, int64, error) { p.cancel() }

// Talk has the handler answer.
func (p *place) Talk(x *exchange.Exchange, w *http2.Writer) (sent int64, err error) {
	growStack()
	defer p.cancel()
	a := &answer{x: x, out: w, header: http.Header{}}
	r, err := p.request(x)
	if err != nil {
		http.Error(a, "the path cannot be read", http.StatusBadRequest)
		return a.finish()
	}
	if body, ok := r.Body.(*body); ok {
		defer body.Close()
	}
	defer func() {
		if aborted := recover(); aborted == http.ErrAbortHandler {
			sent, err = a.sent, http.ErrAbortHandler
		} else if aborted != nil {
			panic(aborted)
		}
	}()
	p.client.handler.ServeHTTP(a, r)
	return a.finish()
}

// growStack makes the goroutine's stack as large as most calls need while there
// is next to nothing on it that would have to be moved.
//
//go:noinline
func growStack() byte {
	var room [10 << 10]byte
	return room[touch(&room)]
}

//go:noinline
func touch(room *[10 << 10]byte) int { return int(room[0]) }

// request is the exchange's, as a handler knows it.
func (p *place) request(x *exchange.Exchange) (*http.Request, error) {
	target := string(x.Request.Path)
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	r := (&http.Request{
		Method: method(x.Request.Method), URL: u, RequestURI: target, Host: string(x.Request.Authority),
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: headerOf(&x.Request.Fields), Body: http.NoBody,
		RemoteAddr: p.client.address, TLS: p.client.tls,
	}).WithContext(p.ctx)
	if x.Request.Body != nil {
		r.ContentLength = x.Request.Body.Length()
		r.Body = &body{from: x.Request.Body, request: r, trailers: &x.Request.Trailers}
	}
	return r, nil
}

func method(m []byte) string {
	switch string(m) {
	case http.MethodPost:
		return http.MethodPost
	case http.MethodGet:
		return http.MethodGet
	}
	return string(m)
}

// headerOf copies fields, in the spelling of net/http.
func headerOf(fields *exchange.Fields) http.Header {
	header := make(http.Header, fields.Len())
	values := make([]string, fields.Len()) // all in one piece
	for i := range fields.Len() {
		f := fields.At(i)
		name, known := usual[string(f.Name)]
		if !known {
			name = textproto.CanonicalMIMEHeaderKey(string(f.Name))
		}
		values[i] = string(f.Value)
		if before := header[name]; before != nil {
			header[name] = append(before, values[i])
		} else {
			header[name] = values[i : i+1 : i+1]
		}
	}
	return header
}

// usual are the names that nearly every call bears.
var usual = map[string]string{
	"accept-encoding": "Accept-Encoding", "authorization": "Authorization", "connect-protocol-version": "Connect-Protocol-Version",
	"connect-timeout-ms": "Connect-Timeout-Ms", "content-length": "Content-Length", "content-type": "Content-Type",
	"grpc-accept-encoding": "Grpc-Accept-Encoding", "grpc-encoding": "Grpc-Encoding", "grpc-timeout": "Grpc-Timeout",
	"user-agent": "User-Agent",
}
