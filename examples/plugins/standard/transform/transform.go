// Package transform is a policy that changes the heads of requests and responses, the
// query, and JSON bodies.
//
//	config:
//	  request:
//	    rename: {x-trace: x-request-id}
//	    remove: [x-debug]
//	    set: {x-shop: bookshop}            # replaces
//	    add: {via: weir}                   # appends
//	  query: {rename: {q: search}, remove: [debug], set: {lang: en}}
//	  requestBody: {remove: [password, "$.user.password"]}
//	  response: {remove: [server]}
//	  responseBody:
//	    rename: {isbn13: isbn}
//	    remove: [cost]
//	    set: {currency: EUR}               # any JSON value
//
// Within each the order is as above. A body is changed when it is JSON of no more than
// maxBytes; any other passes as it is. Names are those of an object, or of the objects
// of an array; what begins with "$" is a JSON path: $.user.name, $.items[*].price.
package transform

import (
	"fmt"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// Plugin is the policy.
func Plugin() sdk.Plugin { return sdk.Define(newTransform) }

func newTransform(c config) (sdk.Handler, error) {
	heads := headers{newHeaderEdit(c.Request), newHeaderEdit(c.Response), newQueryEdit(c.Query)}
	asked, err := newDocumentEdit(c.RequestBody)
	if err != nil {
		return nil, fmt.Errorf("requestBody: %w", err)
	}
	answered, err := newDocumentEdit(c.ResponseBody)
	if err != nil {
		return nil, fmt.Errorf("responseBody: %w", err)
	}
	// Without the bodies' methods the host need not show bodies at all.
	switch {
	case asked == nil && answered == nil:
		return &heads, nil
	case asked == nil:
		return &answers{heads, answered}, nil
	case answered == nil:
		return &requests{heads, asked}, nil
	}
	return &both{requests{heads, asked}, answers{heads, answered}}, nil
}

// headers changes heads alone.
type headers struct {
	request, response headerEdit
	query             *queryEdit
}

func (h *headers) OnRequest(r *sdk.Request) sdk.Action {
	if h.query != nil {
		path := r.Path()
		if changed := h.query.apply(path); changed != path {
			r.Header.Set(":path", changed)
		}
	}
	if len(h.request.rename) > 0 {
		h.request.renameIn(r.Header)
	}
	return r.Continue(&h.request.rest)
}

func (h *headers) OnResponse(r *sdk.Response) sdk.Action {
	if len(h.response.rename) > 0 {
		h.response.renameIn(r.Header)
	}
	return r.Continue(&h.response.rest)
}

// editable marks an exchange whose body is to be changed.
var editable any = new(struct{ _ byte })

// requests changes heads and the bodies of requests.
type requests struct {
	headers
	edit *documentEdit
}

func (t *requests) OnRequest(r *sdk.Request) sdk.Action {
	if !r.End && t.edit.possible(r.Header) {
		r.State = editable
		announce(r.Header)
	}
	return t.headers.OnRequest(r)
}

func (t *requests) OnRequestBody(r *sdk.Request) sdk.Action {
	if r.State != editable {
		return sdk.Continue
	}
	return t.edit.show(r.Exchange, r.Body, r.End)
}

// answers changes heads and the bodies of answers.
type answers struct {
	headers
	edit *documentEdit
}

func (t *answers) OnRequest(r *sdk.Request) sdk.Action {
	whole(r)
	return t.headers.OnRequest(r)
}

// whole: a compressed answer, or a part of one, could not be changed.
func whole(r *sdk.Request) {
	r.Header.Del("accept-encoding")
	r.Header.Del("range")
}

func (t *answers) OnResponse(r *sdk.Response) sdk.Action {
	if !r.End && t.edit.possible(r.Header) {
		r.State = editable
		announce(r.Header)
	}
	return t.headers.OnResponse(r)
}

func (t *answers) OnResponseBody(r *sdk.Response) sdk.Action {
	if r.State != editable {
		return sdk.Continue
	}
	return t.edit.show(r.Exchange, r.Body, r.End)
}

// both changes all there is.
type both struct {
	asked    requests
	answered answers
}

func (t *both) OnRequest(r *sdk.Request) sdk.Action {
	whole(r)
	return t.asked.OnRequest(r)
}

func (t *both) OnRequestBody(r *sdk.Request) sdk.Action { return t.asked.OnRequestBody(r) }

func (t *both) OnResponse(r *sdk.Response) sdk.Action {
	r.State = nil // of a body that did not come to its end
	return t.answered.OnResponse(r)
}

func (t *both) OnResponseBody(r *sdk.Response) sdk.Action { return t.answered.OnResponseBody(r) }
