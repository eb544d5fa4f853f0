package plugintest

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// maxWait is how long an exchange waits that nothing continues. What a case says is
// answered comes at once.
const maxWait = 10 * time.Second

func newExchange(c *Case) *exchange.Exchange {
	x := new(exchange.Exchange)
	fill(x, c, c.Time)
	x.Deadline = time.Now().Add(maxWait)
	return x
}

// fill makes an exchange the case's, before anyone has seen it.
func fill(x *exchange.Exchange, c *Case, now time.Time) {
	x.ID, x.Start, x.Protocol = []byte("01-case"), now, exchange.HTTP11
	x.Route, x.Service = "default/route", "default/service"
	x.Client, x.Local = c.Client, localAddress
	m := &c.Request
	x.Request.Method, x.Request.Scheme = []byte(m.Method), []byte(m.Scheme)
	x.Request.Authority, x.Request.Path = []byte(m.Host), []byte(m.Path)
	m.into(&x.Request.Fields, &x.Request.Trailers, &x.Request.Body)
}

var localAddress = netip.MustParseAddrPort("192.0.2.2:80")

// answer makes the message the service's answer.
func (m *Message) answer(x *exchange.Exchange) {
	x.Response.Status = m.Status
	m.into(&x.Response.Fields, &x.Response.Trailers, &x.Response.Body)
}

func (m *Message) into(fields, trailers *exchange.Fields, body *exchange.Body) {
	for _, f := range m.Fields {
		fields.Add([]byte(f.Name), []byte(f.Value))
	}
	if m.Chunks != nil {
		*body = &chunks{left: m.Chunks, trailers: m.Trailers, to: trailers}
	}
}

// chunks is a body as a case cuts it. Its length is not known before its end, as
// where a body comes chunked; with a single chunk it is.
type chunks struct {
	left     []string
	trailers []Field
	to       *exchange.Fields
}

// Length implements exchange.Body.
func (c *chunks) Length() int64 {
	if len(c.left) == 1 && len(c.trailers) == 0 {
		return int64(len(c.left[0]))
	}
	return -1
}

// Next implements exchange.Body.
func (c *chunks) Next() ([]byte, error) {
	if len(c.left) == 0 {
		for _, f := range c.trailers {
			c.to.Add([]byte(f.Name), []byte(f.Value))
		}
		c.trailers = nil
		return nil, io.EOF
	}
	chunk := []byte(c.left[0])
	c.left = c.left[1:]
	return chunk, nil
}

func requestOf(x *exchange.Exchange) message {
	r := &x.Request
	return message{there: true, method: string(r.Method), scheme: string(r.Scheme), host: string(r.Authority), path: string(r.Path),
		fields: listOf(&r.Fields)}
}

func responseOf(x *exchange.Exchange) message {
	return message{there: true, status: x.Response.Status, fields: listOf(&x.Response.Fields)}
}

func listOf(fields *exchange.Fields) []Field {
	var out []Field
	for i := range fields.Len() {
		f := fields.At(i)
		out = append(out, Field{string(bytes.ToLower(f.Name)), string(f.Value)})
	}
	return out
}

func readAll(b exchange.Body) (string, error) {
	var all strings.Builder
	for b != nil {
		chunk, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return all.String(), err
		}
		all.Write(chunk)
	}
	return all.String(), nil
}
