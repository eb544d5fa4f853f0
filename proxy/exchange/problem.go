package exchange

import (
	"cmp"
	"strconv"
)

// Problem is an answer of Weir's own, the proxy's or a native policy's (RFC 9457).
type Problem struct {
	Status int
	// Code is one stable word for programs, and the end of the problem's type
	// unless Type is given.
	Code string
	// Type is the problem's, where others have defined it; "": one of Weir's own.
	Type string
	// Title is empty for the status's own phrase.
	Title string
	// Detail is one sentence for people, without quotes.
	Detail string
	// Members are more of them, in JSON, each with a comma before it; "": none.
	Members string
}

// Refuse makes a problem the answer.
func (x *Exchange) Refuse(p Problem) {
	kind, own := p.Type, ""
	if kind == "" {
		kind, own = "urn:weir:problem:", p.Code
	}
	x.Answer(p.Status, x.Copy(`{"type":"`, kind, own, `","title":"`, cmp.Or(p.Title, Reason(p.Status)), `","status":`, strconv.Itoa(p.Status),
		`,"detail":"`, p.Detail, `","requestId":"`, string(x.ID), `"`, p.Members, "}\n"))
	x.Details = p.Code
	x.Response.Fields.Add([]byte("Content-Type"), []byte("application/problem+json"))
}
