package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/weirmesh/weir/contract"
	"github.com/weirmesh/weir/policy"
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

// defaultBody is the longest body that is checked unless an Api says otherwise.
const defaultBody = 1 << 20

// checks is the policy that compares with a contract.
type checks struct {
	host              *Host
	spec              policy.Spec
	contract          *contract.Contract
	request, response weirv1.ApiValidation_Mode
	maxBody           int
	keyField          string // what bore a key is not there any more
	checkers          sync.Pool
	api               string // "tenant/name"
}

func (h *Host) newChecks(spec policy.Spec, declared *weirv1.ApiSpec) (*checks, error) {
	compiled, err := h.acquire(spec.Document)
	if err != nil {
		return nil, fmt.Errorf("compile the contract of Api %s: %w", spec.Name, err)
	}
	v := declared.GetValidation()
	c := &checks{
		host: h, spec: spec, contract: compiled, api: spec.Tenant + "/" + spec.Name,
		request:  cmp.Or(v.GetRequest(), weirv1.ApiValidation_ENFORCE),
		response: cmp.Or(v.GetResponse(), weirv1.ApiValidation_OFF),
		maxBody:  int(cmp.Or(v.GetMaxBodyBytes(), defaultBody)), keyField: keyField(declared),
	}
	c.checkers.New = func() any { return new(contract.Checker) }
	return c, nil
}

func (c *checks) Spec() policy.Spec { return c.spec }

func (c *checks) Phases() policy.Phases {
	phases := policy.RequestHead // to know the operation
	if c.request != weirv1.ApiValidation_OFF {
		phases |= policy.RequestBody
	}
	if c.response != weirv1.ApiValidation_OFF {
		phases |= policy.ResponseHead | policy.ResponseBody
	}
	return phases
}

func (c *checks) NewFilter() policy.Filter { return &checkFilter{checks: c} }
func (c *checks) Release()                 { c.host.release(c.spec.Document) }

// checkFilter checks one exchange.
type checkFilter struct {
	*checks
	match   contract.Match
	known   bool // the operation
	skipped bool // the body is longer than what is checked
}

// Begin implements policy.Filter.
func (f *checkFilter) Begin(*exchange.Exchange) error {
	f.match, f.known, f.skipped = contract.Match{}, false, false
	return nil
}

// OnRequest implements policy.Filter.
func (f *checkFilter) OnRequest(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	match, wrong := f.contract.Find(x.Request.Method, x.Request.Path)
	if f.known = wrong == nil; f.known {
		f.match = match
	}
	if f.request == weirv1.ApiValidation_OFF {
		return policy.Continue, nil
	}
	if wrong != nil {
		return f.refuse(x, []contract.Violation{*wrong}), nil
	}
	by := f.checkers.Get().(*contract.Checker)
	violations := f.withoutKey(by.Request(&f.match, x.Request.Path, &x.Request.Fields, !end))
	f.checkers.Put(by)
	switch {
	case violations != nil:
		f.skipped = true // enough is wrong
		return f.refuse(x, violations), nil
	case end || !f.match.Operation.TakesBody():
		f.skipped = true
	case x.Request.Body.Length() > int64(f.maxBody):
		return f.tooLong(x), nil
	default:
		return policy.Hold, nil
	}
	return policy.Continue, nil
}

// withoutKey leaves out that a field is missing which was there and bore the key.
func (f *checkFilter) withoutKey(violations []contract.Violation) []contract.Violation {
	if f.keyField == "" || violations == nil {
		return violations
	}
	violations = slices.DeleteFunc(violations, func(v contract.Violation) bool {
		return v.In == "header" && v.Rule == "required" && strings.EqualFold(v.Name, f.keyField)
	})
	if len(violations) == 0 {
		return nil
	}
	return violations
}

// OnRequestBody implements policy.Filter.
func (f *checkFilter) OnRequestBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	switch {
	case f.skipped || !f.known:
		return policy.Continue, nil
	case len(*chunk) > f.maxBody:
		return f.tooLong(x), nil
	case !end:
		return policy.Hold, nil
	}
	by := f.checkers.Get().(*contract.Checker)
	violations := by.Body(&f.match, &x.Request.Fields, *chunk)
	f.checkers.Put(by)
	if violations != nil {
		return f.refuse(x, violations), nil
	}
	return policy.Continue, nil
}

func (f *checkFilter) tooLong(x *exchange.Exchange) policy.Verdict {
	f.skipped = true
	if f.request != weirv1.ApiValidation_ENFORCE {
		return policy.Continue
	}
	x.Refuse(exchange.Problem{Status: 413, Code: "body_too_large", Detail: fmt.Sprintf("The body is longer than the %d bytes that are checked.", f.maxBody)})
	return policy.Respond
}

// refuse is for requests.
func (f *checkFilter) refuse(x *exchange.Exchange, violations []contract.Violation) policy.Verdict {
	f.report(x, "request", f.request, violations)
	if f.request != weirv1.ApiValidation_ENFORCE {
		return policy.Continue
	}
	x.Refuse(exchange.Problem{Status: 400, Code: "contract_violated", Detail: "The request is not as the API's contract says.", Members: members(violations)})
	return policy.Respond
}

// members are the violations as a member of a problem.
func members(violations []contract.Violation) string {
	type item struct {
		In      string `json:"in"`
		Name    string `json:"name,omitempty"`
		Pointer string `json:"pointer"`
		Rule    string `json:"rule"`
		Schema  string `json:"schema"`
		Detail  string `json:"detail"`
	}
	all := make([]item, 0, len(violations))
	for _, v := range violations {
		all = append(all, item{v.In, v.Name, v.Pointer, v.Rule, v.Schema, v.Detail})
	}
	text, _ := json.Marshal(all) // strings can always be written
	return `,"errors":` + string(text)
}

// OnResponse implements policy.Filter. What others have answered in the service's
// place is nothing of the contract.
func (f *checkFilter) OnResponse(x *exchange.Exchange, end bool) (policy.Verdict, error) {
	f.skipped = true
	if !f.known || x.Details != "" || x.Response.Status == 101 || x.Response.Status == 304 {
		return policy.Continue, nil
	}
	bodiless := end || string(x.Request.Method) == "HEAD"
	if !bodiless && f.match.TakesBody(x.Response.Status) && x.Response.Body.Length() <= int64(f.maxBody) {
		f.skipped = false
		return policy.Hold, nil
	}
	return f.judge(x, nil, false), nil
}

// OnResponseBody implements policy.Filter.
func (f *checkFilter) OnResponseBody(x *exchange.Exchange, chunk *[]byte, end bool) (policy.Verdict, error) {
	switch {
	case f.skipped:
		return policy.Continue, nil
	case len(*chunk) > f.maxBody:
		f.skipped = true
		return f.judge(x, nil, false), nil
	case !end:
		return policy.Hold, nil
	}
	return f.judge(x, *chunk, true), nil
}

func (f *checkFilter) judge(x *exchange.Exchange, body []byte, hasBody bool) policy.Verdict {
	by := f.checkers.Get().(*contract.Checker)
	violations := by.Response(&f.match, x.Response.Status, &x.Response.Fields, body, hasBody)
	f.checkers.Put(by)
	if violations == nil {
		return policy.Continue
	}
	f.report(x, "response", f.response, violations)
	if f.response != weirv1.ApiValidation_ENFORCE {
		return policy.Continue
	}
	x.Refuse(exchange.Problem{Status: 502, Code: "response_contract_violated", Detail: "The service's answer is not as the API's contract says."})
	return policy.Respond
}

// report logs and counts.
func (f *checkFilter) report(x *exchange.Exchange, of string, mode weirv1.ApiValidation_Mode, violations []contract.Violation) {
	operation := ""
	if f.known {
		operation = f.match.Operation.Name
	}
	f.host.meters.violated(f.api, of, strings.ToLower(mode.String()))
	if !f.host.meters.mayLog() {
		return
	}
	f.host.log.Warn("contract violated", slog.String("api", f.api), slog.String("of", of), slog.String("operation", operation),
		slog.String("request_id", string(x.ID)), slog.String("violation", violations[0].String()), slog.String("rule", violations[0].Schema),
		slog.Int("violations", len(violations)))
}

// Close implements policy.Filter.
func (f *checkFilter) Close(*exchange.Exchange) {}
