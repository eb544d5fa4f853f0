package proxy

import (
	"net/http"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// dated is a second as a Date field has it.
type dated struct {
	second int64
	text   []byte
}

// date is a time as a Date field has it. It is written once a second.
func (p *Proxy) date(t time.Time) []byte {
	d, second := p.dated.Load(), t.Unix()
	if d == nil || d.second != second {
		d = &dated{second, t.UTC().AppendFormat(make([]byte, 0, len(http.TimeFormat)), http.TimeFormat)}
		p.dated.Store(d)
	}
	return d.text
}

var headerDate = []byte("Date")

// addDate: every answer has a date, be it our own or that of a service without a
// clock (RFC 9110, section 6.6.1).
func (s *session) addDate(x *exchange.Exchange) {
	if x.Response.Tunnel != nil && !x.Request.Connect || x.Response.Fields.Has("date") {
		return
	}
	at := s.answered
	if at.Before(x.Start) { // no service's answer
		at = time.Now()
	}
	x.Response.Fields.AddParsed(headerDate, s.proxy.date(at))
}
