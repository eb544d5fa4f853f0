package telemetry

import (
	"strconv"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

// LogConnection writes down a connection that carried no HTTP and has ended. x
// says who, where and when; received and sent are the client's bytes. err is why
// it did not end by itself.
func (l *AccessLog) LogConnection(x *exchange.Exchange, protocol string, received, sent int64, now time.Time, err error) {
	l.put(func(b []byte) []byte { return appendConnection(b, x, protocol, received, sent, now, err) })
}

func appendConnection(b []byte, x *exchange.Exchange, protocol string, received, sent int64, now time.Time, err error) []byte {
	b = append(b, `{"time":"`...)
	b = x.Start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	b = append(b, '"')
	b = appendText(b, "connection_id", x.ID)
	b = appendText(b, "route", x.Route)
	b = appendText(b, "rule", x.Rule)
	b = appendText(b, "service", x.Service)
	b = appendText(b, "protocol", protocol)
	b = appendText(b, "server_name", x.Request.Authority)
	b = append(b, `,"bytes_in":`...)
	b = strconv.AppendInt(b, received, 10)
	b = append(b, `,"bytes_out":`...)
	b = strconv.AppendInt(b, sent, 10)
	b = append(b, `,"duration_ms":`...)
	b = strconv.AppendFloat(b, float64(now.Sub(x.Start).Microseconds())/1000, 'f', 3, 64)
	b = append(b, `,"client":"`...)
	if x.Client.IsValid() {
		b = x.Client.AppendTo(b)
	}
	b = append(b, '"')
	b = appendTLS(b, x.TLS)
	b = appendText(b, "upstream_addr", x.Endpoint)
	b = appendText(b, "details", x.Details)
	b = append(b, `,"revision":`...)
	b = strconv.AppendUint(b, x.Revision, 10)
	if err != nil {
		b = appendText(b, "error", err.Error())
	}
	return append(b, '}', '\n')
}

func appendTLS(b []byte, t *exchange.TLS) []byte {
	if t == nil {
		return b
	}
	b = appendText(b, "tls_version", t.Version)
	if t.Peer != nil {
		b = appendText(b, "peer_subject", t.Peer.Subject)
		b = appendText(b, "peer_id", firstOf(t.Peer.URIs))
	}
	return b
}
