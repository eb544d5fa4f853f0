package http3

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/section"
)

// begin reads the request's head into the exchange, and prepares for its body. A
// *http1.Error is a message that is answered with a status.
func (s *stream) begin(x *exchange.Exchange) error {
	x.Start = time.Now()
	x.Protocol, x.Client, x.Local, x.TLS = exchange.HTTP3, s.conn.cfg.Client, s.conn.cfg.Local, s.conn.cfg.TLS
	x.Request.Scheme, x.Informer = schemeHTTPS, s
	s.until = x.Start.Add(s.conn.cfg.Head)
	defer func() { s.until = time.Time{} }()
	b, err := s.readHead()
	if err != nil {
		return slow(err)
	}
	var fields section.Reader
	fields.Begin(x)
	if err := readSection(b, fields.Field); err != nil {
		return err
	}
	err = fields.Finish()
	x.Request.Scheme = schemeHTTPS
	s.head = string(x.Request.Method) == "HEAD"
	s.declared, s.asking = fields.Length(), fields.Expecting()
	if err != nil {
		if status, reason := section.StatusOf(err); status == 0 {
			err = &streamError{codeMessage, reason}
		}
		return err
	}
	return slow(s.beginBody(x))
}

var schemeHTTPS = []byte("https")

// slow: who is too slow with a head is told so.
func slow(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &http1.Error{Status: 408, Reason: "the head did not arrive in time"}
	}
	return err
}

// readHead reads the request's first section.
func (s *stream) readHead() ([]byte, error) {
	for {
		kind, length, err := s.in.frame()
		switch {
		case err == io.EOF:
			return nil, &streamError{codeIncomplete, "the request has no head"}
		case err != nil:
			return nil, err
		case !known(kind):
			if err := s.skip(length); err != nil {
				return nil, err
			}
			continue
		case kind != frameHeaders:
			return nil, &connError{codeFrameUnexpected, "the first frame is no HEADERS"}
		case length > maxSection:
			return nil, &http1.Error{Status: 431, Reason: "head is too large"}
		}
		return s.in.take(int(length))
	}
}

// beginBody finds out whether there is a body. Where the length does not say so
// and the method expects none, what follows the head is awaited: the end of the
// request may come in a packet of its own, and a service should not be asked with
// a body of unknown length because of that.
func (s *stream) beginBody(x *exchange.Exchange) error {
	if s.in.ended || s.declared < 0 && !expectsBody(x.Request.Method) {
		if err := s.advance(); err != nil {
			return err
		}
	}
	if s.declared == 0 || s.over {
		s.handOver()
		return nil
	}
	x.Request.Body = s
	return nil
}

// expectsBody: RFC 9110, section 9.3.
func expectsBody(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "DELETE", "TRACE":
		return false
	}
	return true
}
