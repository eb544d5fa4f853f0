package exchange

import (
	"cmp"
	"strconv"
)

// Problem is an answer of Weir's own, the proxy's or a native policy's (RFC 9457).
type Problem struct {
	Status int
	// Code is one stable word for programs, and the end of the problem's type.
	Code string
	// Title is empty for the status's own phrase.
	Title string
	// Detail is one sentence for people, without quotes.
	Detail string
	// Members are more of them, in JSON, each with a comma before it; "": none.
	Members string
}

// Refuse makes a problem the answer.
func (x *Exchange) Refuse(p Problem) {
	x.Answer(p.Status, x.Copy(`{"type":"urn:weir:problem:`, p.Code, `","title":"`, cmp.Or(p.Title, Reason(p.Status)), `","status":`, strconv.Itoa(p.Status),
		`,"detail":"`, p.Detail, `","requestId":"`, string(x.ID), `"`, p.Members, "}\n"))
	x.Details = p.Code
	x.Response.Fields.Add([]byte("Content-Type"), []byte("application/problem+json"))
}
