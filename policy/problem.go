package policy

import (
	"cmp"
	"net/http"
	"strconv"

	"github.com/weirmesh/weir/proxy/exchange"
)

// Problem is an answer of a native policy's (RFC 9457).
type Problem struct {
	Status int
	// Code is one stable word for programs, and the end of the problem's type.
	Code string
	// Detail is one sentence for people, without quotes.
	Detail string
	// Members are more of them, in JSON, each with a comma before it; "": none.
	Members string
}

// Answer makes it the exchange's answer.
func (p Problem) Answer(x *exchange.Exchange) Verdict {
	x.Answer(p.Status, x.Copy(`{"type":"urn:weir:problem:`, p.Code, `","title":"`, cmp.Or(http.StatusText(p.Status), "Refused"), `","status":`, strconv.Itoa(p.Status),
		`,"detail":"`, p.Detail, `","requestId":"`, string(x.ID), `"`, p.Members, "}\n"))
	x.Details = p.Code
	x.Response.Fields.Add([]byte("Content-Type"), []byte("application/problem+json"))
	return Respond
}
