package http1

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// AppendRequest writes a request's head. chunked says how a body of unknown
// length goes; a body whose length is known goes by Content-Length.
func AppendRequest(dst []byte, r *exchange.Request) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, r.Path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.Authority...)
	dst = append(dst, '\r', '\n')
	length := int64(0)
	if r.Body != nil {
		length = r.Body.Length()
	}
	announced := appendFields(&dst, &r.Fields)
	switch {
	case length < 0:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || announced || needsLength(r.Method):
		dst = appendLength(dst, length)
	}
	return append(dst, '\r', '\n')
}

// needsLength: a method that is expected to carry content says so even when it
// carries none (RFC 9110, section 8.6).
func needsLength(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// appendFields writes all fields but Content-Length, which follows from the
// body; it reports whether there was one.
func appendFields(dst *[]byte, fields *exchange.Fields) (announced bool) {
	b := *dst
	for i := range fields.Len() {
		f := fields.At(i)
		if len(f.Name) == len("content-length") && exchange.EqualFold(f.Name, "content-length") {
			announced = true
			continue
		}
		b = append(b, f.Name...)
		b = append(b, ':', ' ')
		b = append(b, f.Value...)
		b = append(b, '\r', '\n')
	}
	*dst = b
	return announced
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, '\r', '\n')
}

// Delivery says how a response's body goes to the client.
type Delivery uint8

const (
	// NoBody: the answer has none, whatever its fields say (HEAD, 204, 304).
	NoBody Delivery = iota
	// Sized: by Content-Length.
	Sized
	// Chunked: by the chunked coding.
	Chunked
	// UntilClose: to the end of the connection, for an HTTP/1.0 client.
	UntilClose
)

// DeliveryOf decides how x's response goes to its client.
func DeliveryOf(x *exchange.Exchange) Delivery {
	r := &x.Response
	switch {
	case string(x.Request.Method) == "HEAD" || r.Status == 304 || r.Status == 204 || r.Status < 200:
		return NoBody
	case r.Body == nil || r.Body.Length() >= 0:
		return Sized
	case x.Protocol == exchange.HTTP10:
		return UntilClose
	}
	return Chunked
}

// AppendResponse writes a response's head.
func AppendResponse(dst []byte, x *exchange.Exchange, d Delivery, keepAlive bool) []byte {
	r := &x.Response
	dst = append(dst, "HTTP/1.1 "...)
	dst = appendStatus(dst, r.Status)
	switch d {
	case NoBody:
		dst = appendBodyless(dst, r)
	case Sized:
		length := int64(0)
		if r.Body != nil {
			length = r.Body.Length()
		}
		appendFields(&dst, &r.Fields)
		dst = appendLength(dst, length)
	case Chunked:
		appendFields(&dst, &r.Fields)
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case UntilClose:
		appendFields(&dst, &r.Fields)
	}
	switch {
	case !keepAlive:
		dst = append(dst, "Connection: close\r\n"...)
	case x.Protocol == exchange.HTTP10:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, '\r', '\n')
}

// appendBodyless keeps the Content-Length that a GET would have had, where one
// is allowed (RFC 9110, section 8.6).
func appendBodyless(dst []byte, r *exchange.Response) []byte {
	announced := appendFields(&dst, &r.Fields)
	if announced && r.Status >= 200 && r.Status != 204 {
		dst = append(dst, "Content-Length: "...)
		dst = append(dst, r.Fields.Get("content-length")...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

func appendStatus(dst []byte, status int) []byte {
	if status == 200 {
		return append(dst, "200 OK\r\n"...)
	}
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, Reason(status)...)
	return append(dst, '\r', '\n')
}

// WriteChunk sends one chunk of the chunked coding.
func WriteChunk(c *wire.Conn, chunk []byte) error {
	out := strconv.AppendInt(c.Out(), int64(len(chunk)), 16)
	c.SetOut(append(out, '\r', '\n'))
	if err := c.Write(chunk); err != nil {
		return err
	}
	c.SetOut(append(c.Out(), '\r', '\n'))
	return nil
}

// EndChunks sends the last chunk and the trailers.
func EndChunks(c *wire.Conn, trailers *exchange.Fields) {
	out := append(c.Out(), "0\r\n"...)
	appendFields(&out, trailers)
	c.SetOut(append(out, '\r', '\n'))
}
