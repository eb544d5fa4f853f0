package waf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"github.com/corazawaf/coraza/v3/types"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/proxy/exchange"
)

// smallBody is how much of a body is looked at without waiting for a turn.
const smallBody = 16 << 10

// filter takes exchanges through transactions of the engine, one after the other.
type filter struct {
	policy *Policy
	hits   hits
	tx     types.Transaction
	action action
	// answered: the response is ours, and not looked at.
	answered bool
	// score and outbound are the anomaly scores, where something was added to them.
	score, outbound string
}

func newFilter(p *Policy) *filter {
	return &filter{policy: p, hits: hits{Context: context.Background(), meter: p.meter}}
}

// Begin implements policy.Filter.
func (f *filter) Begin(x *exchange.Exchange) (err error) {
	defer caught(&err)
	f.action, f.answered, f.score, f.outbound = passed, false, "", ""
	f.hits.reset()
	f.tx = f.policy.set.begin(&f.hits, string(x.ID))
	return nil
}

// caught makes a panic of the engine this exchange's failure.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the engine failed: %v", p)
	}
}

// OnRequest implements policy.Filter.
func (f *filter) OnRequest(x *exchange.Exchange, end bool) (_ policy.Verdict, err error) {
	defer caught(&err)
	done, err := f.turn(x, 0)
	if err != nil {
		return policy.Continue, err
	}
	defer done()
	f.showRequest(x)
	if i := f.tx.ProcessRequestHeaders(); i != nil {
		return f.refuse(x, i), nil
	}
	if !end && !x.Request.IsGRPC() && f.tx.IsRequestBodyAccessible() && !f.tx.IsRuleEngineOff() {
		if f.policy.set.reject && x.Request.Body.Length() > int64(f.policy.set.limit) {
			return f.tooLarge(x), nil
		}
		return policy.Hold, nil
	}
	return f.lookAtRequest(x, nil)
}

// OnRequestBody implements policy.Filter.
func (f *filter) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (_ policy.Verdict, err error) {
	defer caught(&err)
	over := len(*chunk) > f.policy.set.limit
	switch {
	case over && f.policy.set.reject:
		return f.tooLarge(x), nil
	case over || end:
		return f.judgeRequest(x, *chunk)
	}
	return policy.Hold, nil
}

// judgeRequest looks at the body, as much of it as is here and within the limit, and
// at the request as a whole.
func (f *filter) judgeRequest(x *exchange.Exchange, body []byte) (policy.Verdict, error) {
	body = body[:min(len(body), f.policy.set.limit+1)]
	done, err := f.turn(x, len(body))
	if err != nil {
		return policy.Continue, err
	}
	defer done()
	return f.lookAtRequest(x, body)
}

func (f *filter) lookAtRequest(x *exchange.Exchange, body []byte) (policy.Verdict, error) {
	if len(body) > 0 {
		if _, _, err := f.tx.WriteRequestBody(body); err != nil {
			return policy.Continue, fmt.Errorf("take the body: %w", err)
		}
	}
	// Where the body was cut this was done already, and does nothing.
	if _, err := f.tx.ProcessRequestBody(); err != nil {
		return policy.Continue, fmt.Errorf("look at the body: %w", err)
	}
	if i := f.tx.Interruption(); i != nil {
		return f.refuse(x, i), nil
	}
	return policy.Pass, nil
}

// turn waits until the engine may look at this many bytes of a body; done ends that.
func (f *filter) turn(x *exchange.Exchange, size int) (done func(), err error) {
	h := f.policy.host
	turns := h.small
	if size > smallBody {
		turns = h.turns
	}
	select {
	case turns <- struct{}{}:
	default:
		if err := f.wait(x, turns); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	return func() {
		f.policy.meter.busy.Add(int64(time.Since(began)))
		<-turns
	}, nil
}

// wait takes a turn when others have had theirs.
func (f *filter) wait(x *exchange.Exchange, turns chan struct{}) error {
	m := f.policy.meter
	m.waiting.Add(1)
	defer m.waiting.Add(-1)
	var late <-chan time.Time
	if !x.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(x.Deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case turns <- struct{}{}:
		return nil
	case <-x.Done:
		return errors.New("the client has gone")
	case <-late:
		m.late.Add(1)
		return fmt.Errorf("too many exchanges are to be looked at: %w", policy.ErrWaited)
	}
}

// OnResponse implements policy.Filter.
func (f *filter) OnResponse(x *exchange.Exchange, end bool) (_ policy.Verdict, err error) {
	defer caught(&err)
	if f.answered || x.Response.Tunnel != nil || x.Response.Reset {
		return policy.Pass, nil
	}
	done, err := f.turn(x, 0)
	if err != nil {
		return policy.Continue, err
	}
	defer done()
	for i := range x.Response.Fields.Len() {
		field := x.Response.Fields.At(i)
		f.tx.AddResponseHeader(string(field.Name), string(field.Value))
	}
	if i := f.tx.ProcessResponseHeaders(x.Response.Status, x.Protocol.String()); i != nil {
		return f.refuse(x, i), nil
	}
	if !end && readable(x) && f.tx.IsResponseBodyAccessible() && f.tx.IsResponseBodyProcessable() && !f.tx.IsRuleEngineOff() {
		return policy.Hold, nil
	}
	return f.lookAtResponse(x, nil)
}

// readable: the body is as it is, not compressed.
func readable(x *exchange.Exchange) bool {
	coding := x.Response.Fields.Get("content-encoding")
	return len(coding) == 0 || strings.EqualFold(string(coding), "identity")
}

// OnResponseBody implements policy.Filter.
func (f *filter) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (_ policy.Verdict, err error) {
	defer caught(&err)
	if !end && len(*chunk) <= f.policy.set.responseLimit {
		return policy.Hold, nil
	}
	return f.judgeResponse(x, *chunk)
}

func (f *filter) judgeResponse(x *exchange.Exchange, body []byte) (policy.Verdict, error) {
	body = body[:min(len(body), f.policy.set.responseLimit+1)]
	done, err := f.turn(x, len(body))
	if err != nil {
		return policy.Continue, err
	}
	defer done()
	return f.lookAtResponse(x, body)
}

func (f *filter) lookAtResponse(x *exchange.Exchange, body []byte) (policy.Verdict, error) {
	if len(body) > 0 {
		if _, _, err := f.tx.WriteResponseBody(body); err != nil {
			return policy.Continue, fmt.Errorf("take the answer's body: %w", err)
		}
	}
	if _, err := f.tx.ProcessResponseBody(); err != nil {
		return policy.Continue, fmt.Errorf("look at the answer's body: %w", err)
	}
	if i := f.tx.Interruption(); i != nil {
		return f.refuse(x, i), nil
	}
	return policy.Pass, nil
}

// Close implements policy.Filter.
func (f *filter) Close(x *exchange.Exchange) {
	if err := f.finish(x); err != nil {
		f.policy.host.logger.Warn("firewall failed at the end of an exchange", "policy", f.policy.spec.Name, "request_id", string(x.ID), "error", err)
	}
	f.tx = nil
	f.hits.reset()
}

func (f *filter) finish(x *exchange.Exchange) (err error) {
	defer caught(&err)
	f.tx.ProcessLogging() // rules of the last phase
	if f.hits.count > 0 {
		if f.action == passed {
			f.action = detected
		}
		f.readScores()
	}
	f.policy.meter.by[f.action].Add(1)
	f.audit(x)
	return f.tx.Close()
}

// readScores reads what the core rules have added up.
func (f *filter) readScores() {
	state, ok := f.tx.(plugintypes.TransactionState)
	if !ok {
		return
	}
	first := func(name string) string {
		if values := state.Variables().TX().Get(name); len(values) > 0 && values[0] != "0" {
			return values[0]
		}
		return ""
	}
	f.score, f.outbound = first("blocking_inbound_anomaly_score"), first("blocking_outbound_anomaly_score")
}

// showRequest gives the engine the request's head.
func (f *filter) showRequest(x *exchange.Exchange) {
	f.tx.ProcessConnection(host(x.Client), int(x.Client.Port()), host(x.Local), int(x.Local.Port()))
	f.tx.ProcessURI(string(x.Request.Path), string(x.Request.Method), x.Protocol.String())
	authority := string(x.Request.Authority)
	f.tx.SetServerName(authority)
	if !x.Request.Fields.Has("host") && authority != "" {
		f.tx.AddRequestHeader("Host", authority)
	}
	for i := range x.Request.Fields.Len() {
		field := x.Request.Fields.At(i)
		f.tx.AddRequestHeader(string(field.Name), string(field.Value))
	}
	if x.Request.Body != nil && x.Request.Body.Length() < 0 && x.Protocol < exchange.HTTP2 && !x.Request.Fields.Has("content-length") {
		f.tx.AddRequestHeader("Transfer-Encoding", "chunked") // which the codec has taken out
	}
}

func host(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.Addr().Unmap().String()
}

// refuse answers as a rule wants it: with its status, or 403; by a redirect; or by
// cutting the connection.
func (f *filter) refuse(x *exchange.Exchange, i *types.Interruption) policy.Verdict {
	f.action, f.answered = blocked, true
	status := i.Status
	switch i.Action {
	case "drop":
		x.Answer(0, nil)
		x.Response.Reset = true
		x.Details = "waf_blocked"
		return policy.Respond
	case "redirect":
		if status < 300 || status > 399 {
			status = 302
		}
		x.Answer(status, nil)
		x.Response.Fields.Add(x.Copy("Location"), x.Copy(i.Data))
		x.Details = "waf_blocked"
		return policy.Respond
	}
	if status < 400 || status > 599 {
		status = 403
	}
	return f.answer(x, status, "waf_blocked", "The firewall has refused this exchange.")
}

// tooLarge answers for a body that is longer than what is looked at.
func (f *filter) tooLarge(x *exchange.Exchange) policy.Verdict {
	f.action, f.answered = oversize, true
	return f.answer(x, 413, "body_too_large", "The request's body is larger than the firewall of this route looks at.")
}

// answer tells nothing of rules.
func (f *filter) answer(x *exchange.Exchange, status int, code, detail string) policy.Verdict {
	x.Refuse(exchange.Problem{Status: status, Code: code, Title: cmp.Or(exchange.Reason(status), "Refused"), Detail: detail})
	return policy.Respond
}
