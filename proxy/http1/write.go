package http1

import (
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/wire"
)

// AppendRequest writes a request's head. A body whose length is known goes by
// Content-Length, another by the chunked coding.
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
	announced := appendFields(&dst, &r.Fields, true)
	if r.Expect {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	if r.WebSocket {
		dst = append(dst, switching...)
	}
	switch {
	case length < 0:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || announced || needsLength(r.Method):
		dst = appendLength(dst, length)
	}
	return append(dst, '\r', '\n')
}

const switching = "Connection: Upgrade\r\nUpgrade: websocket\r\n"

// AppendSwitch writes the head of an answer that agrees to a tunnel.
func AppendSwitch(dst []byte, x *exchange.Exchange) []byte {
	dst = appendStatus(append(dst, "HTTP/1.1 "...), x.Response.Status)
	appendFields(&dst, &x.Response.Fields, false)
	if !x.Request.Connect {
		dst = append(dst, switching...)
	}
	return append(dst, '\r', '\n')
}

// AppendInterim writes an interim answer: a head alone.
func AppendInterim(dst []byte, r *exchange.Response) []byte {
	dst = appendStatus(append(dst, "HTTP/1.1 "...), r.Status)
	appendFields(&dst, &r.Fields, false)
	return append(dst, '\r', '\n')
}

// CheckRequest looks at what a request line and Host are made of, after
// something else than a codec has put it there: it must not break out of its
// place.
func CheckRequest(r *exchange.Request) error {
	if !exchange.ValidName(r.Method) || (string(r.Method) == "CONNECT") != r.Connect {
		return malformed("method cannot be sent")
	}
	if r.Connect {
		return checkConnect(r.Authority)
	}
	if len(r.Path) == 0 || r.Path[0] != '/' && string(r.Path) != "*" {
		return malformed("path does not begin with a slash")
	}
	if err := checkTarget(r.Path); err != nil {
		return err
	}
	if !validAuthority(r.Authority) {
		return malformed("authority is invalid")
	}
	return nil
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

// appendFields writes the fields but those that frame a message or belong to
// one hop: they follow from what is sent, whoever put them there. It reports
// whether there was a Content-Length.
func appendFields(dst *[]byte, fields *exchange.Fields, request bool) (announced bool) {
	b := *dst
	for i := range fields.Len() {
		f := fields.At(i)
		if hopByHop[len(f.Name)&31] {
			if exchange.EqualFold(f.Name, "content-length") {
				announced = true
				continue
			}
			if thisHop(f.Name, request) {
				continue
			}
		}
		b = append(b, f.Name...)
		b = append(b, ':', ' ')
		b = append(b, f.Value...)
		b = append(b, '\r', '\n')
	}
	*dst = b
	return announced
}

// thisHop reports a field that the codec alone may write.
func thisHop(name []byte, request bool) bool {
	switch len(name) {
	case 2:
		return exchange.EqualFold(name, "te")
	case 4:
		return request && exchange.EqualFold(name, "host")
	case 6:
		return request && exchange.EqualFold(name, "expect")
	case 7:
		return exchange.EqualFold(name, "upgrade")
	case 10:
		return exchange.EqualFold(name, "connection") || exchange.EqualFold(name, "keep-alive")
	case 16:
		return exchange.EqualFold(name, "proxy-connection")
	case 17:
		return exchange.EqualFold(name, "transfer-encoding")
	}
	return false
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

// DeliveryOf decides how x's response goes to its client. head: the client
// asked with HEAD; x's method may have been changed since.
func DeliveryOf(x *exchange.Exchange, head bool) Delivery {
	r := &x.Response
	switch {
	case head || r.Status == 304 || r.Status == 204 || r.Status < 200:
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
		appendFields(&dst, &r.Fields, false)
		dst = appendLength(dst, length)
	case Chunked:
		appendFields(&dst, &r.Fields, false)
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case UntilClose:
		appendFields(&dst, &r.Fields, false)
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
	announced := appendFields(&dst, &r.Fields, false)
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
	dst = append(dst, exchange.Reason(status)...)
	return append(dst, '\r', '\n')
}

// WriteChunk sends one chunk of the chunked coding.
func WriteChunk(c *wire.Conn, chunk []byte) error {
	if len(chunk) == 0 {
		return nil // it would end the body
	}
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
	appendFields(&out, trailers, true)
	c.SetOut(append(out, '\r', '\n'))
}
