// Package fault makes requests fare badly on purpose, to see what comes of it:
// it holds them back, answers instead of the service, slows answers down, or
// breaks the client's connection.
//
// A [Rule] is one declaration, compiled. For each request it draws what is to
// happen, a [Verdict]; the request path does it. Each kind of fault is drawn by
// itself, so that ten percent of delays and ten percent of aborts meet in one
// percent.
package fault

import (
	"regexp"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// Kind of fault, as it is counted.
type Kind uint8

// The kinds.
const (
	Delay Kind = iota
	Abort
	Bandwidth
	Disconnect
	Kinds = iota // how many there are
)

// String is the kind's name in metrics.
func (k Kind) String() string { return [...]string{"delay", "abort", "bandwidth", "disconnect"}[k] }

// Rule says what happens to how many of which requests. It never changes.
type Rule struct {
	headers    []headerMatch
	delay      time.Duration
	status     int
	grpcStatus string // "": none
	bandwidth  int
	chances    [Kinds]float64 // from 0 to 1; 0 for what is not declared
}

type headerMatch struct {
	name    string
	value   string
	pattern *regexp.Regexp // nil: the value as it is
}

// New compiles a declaration.
func New(spec *weirv1.Fault) (*Rule, error) {
	r := new(Rule)
	for _, h := range spec.GetHeaders() {
		m := headerMatch{name: h.GetName(), value: h.GetValue()}
		if h.GetType() == weirv1.HeaderMatch_REGULAR_EXPRESSION {
			pattern, err := regexp.Compile(`\A(?:` + h.GetValue() + `)\z`)
			if err != nil {
				return nil, err
			}
			m.pattern = pattern
		}
		r.headers = append(r.headers, m)
	}
	if d := spec.GetDelay(); d != nil {
		r.delay, r.chances[Delay] = d.GetFixed().AsDuration(), chance(d.Percent)
	}
	if a := spec.GetAbort(); a != nil {
		r.status, r.chances[Abort] = int(a.GetStatus()), chance(a.Percent)
		if a.GrpcStatus != nil {
			r.grpcStatus = grpcStatus(a.GetGrpcStatus())
		}
	}
	if b := spec.GetBandwidth(); b != nil {
		r.bandwidth, r.chances[Bandwidth] = int(b.GetBytesPerSecond()), chance(b.Percent)
	}
	if d := spec.GetDisconnect(); d != nil {
		r.chances[Disconnect] = chance(d.Percent)
	}
	return r, nil
}

func chance(percent *float64) float64 {
	if percent == nil {
		return 1
	}
	return *percent / 100
}

// Verdict is what is to happen to one request. The zero value is nothing.
type Verdict struct {
	Delay time.Duration
	// Status answers instead of the service, unless it is 0; GRPCStatus too,
	// unless it is empty.
	Status     int
	GRPCStatus string
	// Bandwidth is in bytes a second; 0: no bound.
	Bandwidth  int
	Disconnect bool
}

// Judge adds to a verdict what the rule draws for a request, and reports which
// kinds that are to told. draw returns a number from 0 up to but not 1.
func (r *Rule) Judge(x *exchange.Exchange, v *Verdict, draw func() float64, told func(Kind)) {
	if !r.matches(&x.Request.Fields) {
		return
	}
	for k, chance := range r.chances {
		if chance == 0 || chance < 1 && draw() >= chance {
			continue
		}
		told(Kind(k))
		switch Kind(k) {
		case Delay:
			v.Delay += r.delay
		case Abort:
			v.Status, v.GRPCStatus = r.status, r.grpcStatus
		case Bandwidth:
			if v.Bandwidth == 0 || r.bandwidth < v.Bandwidth {
				v.Bandwidth = r.bandwidth
			}
		case Disconnect:
			v.Disconnect = true
		}
	}
}

func (r *Rule) matches(f *exchange.Fields) bool {
	for _, h := range r.headers {
		if !h.fits(f) {
			return false
		}
	}
	return true
}

// fits compares all fields of the name as one value (RFC 9110, section 5.3).
func (h *headerMatch) fits(f *exchange.Fields) bool {
	if !f.Has(h.name) {
		return false
	}
	var parts []string
	for v := range f.Values(h.name) {
		parts = append(parts, string(v))
	}
	value := strings.Join(parts, ", ")
	if h.pattern != nil {
		return h.pattern.MatchString(value)
	}
	return value == h.value
}
