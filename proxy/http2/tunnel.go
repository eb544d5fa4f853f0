package http2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"io"

	"github.com/weirmesh/weir/proxy/exchange"
)

// handshake is what a client by HTTP/2 does not say, and a service that speaks
// HTTP/1.1 wants to be asked (RFC 6455, section 4; RFC 8441, section 5).
type handshake struct{ accept []byte }

var (
	nameKey     = []byte("Sec-WebSocket-Key")
	nameVersion = []byte("Sec-WebSocket-Version")
	version13   = []byte("13")
)

// newHandshake adds the key that a service proves with that it has understood.
func newHandshake(x *exchange.Exchange) *handshake {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	key := base64.StdEncoding.AppendEncode(nil, random[:])
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	x.Request.Fields.Set(nameKey, key)
	if !x.Request.Fields.Has("sec-websocket-version") {
		x.Request.Fields.Set(nameVersion, version13)
	}
	return &handshake{base64.StdEncoding.AppendEncode(nil, sum[:])}
}

// agreed: the service speaks WebSocket from here on.
func (h *handshake) agreed(x *exchange.Exchange) bool {
	r := &x.Response
	if r.Status != 101 || r.Tunnel == nil {
		return false
	}
	agreed := bytes.Equal(r.Fields.Get("sec-websocket-accept"), h.accept)
	r.Fields.Del("sec-websocket-accept") // an answer to what the client has not asked
	return agreed
}

// tunnel relays what client and service say to each other.
func (s *stream) tunnel(x *exchange.Exchange) (sent int64, err error) {
	t := x.Response.Tunnel
	return exchange.Relay(t, exchange.Client{
		ToService: func() error { return s.toService(t) },
		ToClient:  func() (int64, error) { return s.toClient(x, t) },
		Cut:       s.place.Cut, Abort: s.Abort,
	})
}

func (s *stream) toService(t exchange.Tunnel) error {
	for {
		chunk, err := s.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = t.Send(chunk)
		}
		if err != nil {
			return err
		}
	}
}

func (s *stream) toClient(x *exchange.Exchange, t exchange.Tunnel) (sent int64, err error) {
	head := exchange.Response{Status: x.Response.Status, Fields: x.Response.Fields}
	if s.socket != nil {
		head.Status = 200 // which is what 101 says in HTTP/1.1
	}
	if err := s.sendHead(&head, -1, false, false); err != nil {
		return 0, err
	}
	hurry, _ := t.(waiter)
	for {
		if hurry == nil || !hurry.Ready() {
			if err := s.flush(); err != nil {
				return sent, err
			}
		}
		chunk, err := t.Next()
		if err == io.EOF {
			return sent, s.sendEnd(new(exchange.Fields))
		}
		if err == nil {
			err = s.sendData(chunk, false)
		}
		if err != nil {
			return sent, err
		}
		sent += int64(len(chunk))
	}
}
