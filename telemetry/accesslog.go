package telemetry

import (
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Bounds of the access log's buffer: when it is written, and when lines are
// dropped because the writer cannot follow.
const (
	logFlush    = 64 << 10
	logBound    = 4 << 20
	logInterval = 200 * time.Millisecond
)

// AccessLog writes one JSON object a line and request. A nil log writes
// nothing. It is safe for concurrent use.
type AccessLog struct {
	mu     sync.Mutex
	buf    []byte
	spare  []byte
	closed bool

	out  io.Writer
	lost prometheus.Counter
	wake chan struct{}
	done chan struct{}
}

// NewAccessLog starts a log; Close flushes and ends it.
func NewAccessLog(out io.Writer, lost prometheus.Counter) *AccessLog {
	l := &AccessLog{out: out, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Log writes down an exchange that has ended. err is why the answer was not
// delivered whole, nil when it was.
func (l *AccessLog) Log(x *exchange.Exchange, sent int64, now time.Time, err error) {
	l.put(func(b []byte) []byte { return appendEntry(b, x, sent, now, err) })
}

// put appends a line, if there is room for one.
func (l *AccessLog) put(line func([]byte) []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.buf) >= logBound {
		l.lost.Inc()
		return
	}
	l.buf = line(l.buf)
	if len(l.buf) < logFlush {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func appendEntry(b []byte, x *exchange.Exchange, sent int64, now time.Time, err error) []byte {
	b = append(b, `{"time":"`...)
	b = x.Start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	b = append(b, '"')
	b = appendText(b, "request_id", x.ID)
	b = appendText(b, "route", x.Route)
	b = appendText(b, "rule", x.Rule)
	b = appendText(b, "service", x.Service)
	b = appendText(b, "api", x.Api)
	b = appendText(b, "operation", x.Operation)
	b = appendText(b, "method", x.Request.Method)
	b = appendText(b, "host", x.Request.Authority)
	b = appendText(b, "path", x.Request.Path)
	b = append(b, `,"protocol":"`...)
	b = append(b, x.Protocol.String()...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(x.Response.Status), 10)
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
	b = appendConsumer(b, x.Consumer)
	b = appendText(b, "upstream_addr", x.Endpoint)
	if x.Hedges > 0 {
		b = append(b, `,"hedges":`...)
		b = strconv.AppendInt(b, int64(x.Hedges), 10)
	}
	b = appendText(b, "user_agent", x.Request.Fields.Get("user-agent"))
	b = appendText(b, "details", x.Details)
	b = append(b, `,"revision":`...)
	b = strconv.AppendUint(b, x.Revision, 10)
	if err != nil {
		b = appendText(b, "error", err.Error())
	}
	return append(b, '}', '\n')
}

// appendConsumer says who called; nil: nobody knows.
func appendConsumer(b []byte, c *exchange.Consumer) []byte {
	if c == nil {
		return b
	}
	b = appendText(b, "app", c.App)
	b = appendText(b, "subscription", c.Subscription)
	return b
}

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// appendText writes ,"key":"value" and nothing for an empty value.
func appendText[S string | []byte](b []byte, key string, value S) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, key...)
	b = append(b, `":"`...)
	return append(appendEscaped(b, value), '"')
}

const hexDigits = "0123456789abcdef"

// appendEscaped writes what came from outside as the inside of a JSON string
// (RFC 8259, section 7); bytes that are no UTF-8 become U+FFFD.
func appendEscaped[S string | []byte](b []byte, s S) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return b
}

// run writes what has gathered, at least every interval.
func (l *AccessLog) run() {
	defer close(l.done)
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.wake:
		case <-tick.C:
		}
		l.mu.Lock()
		full, closed := l.buf, l.closed
		l.buf, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		if len(full) > 0 {
			if _, err := l.out.Write(full); err != nil {
				l.lost.Inc()
			}
		}
		l.mu.Lock()
		l.spare = full[:0]
		l.mu.Unlock()
		if closed {
			return
		}
	}
}

// Close writes what is left and ends the log.
func (l *AccessLog) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-l.done
}
