// Command transform is a plugin that changes the heads of requests and
// responses, and the top-level members of JSON answers.
//
//	config:
//	  request:
//	    rename: {x-trace: x-request-id}
//	    remove: [x-debug]
//	    set: {x-shop: bookshop}            # replaces
//	    add: {via: weir}                   # appends
//	  response: {remove: [server]}
//	  responseBody:
//	    rename: {isbn13: isbn}
//	    remove: [cost]
//	    set: {currency: EUR}               # any JSON value
//
// Within each the order is as above. An answer's body is changed when it is a
// JSON object, or an array of objects, of no more than maxBytes; any other
// passes as it is.
package main

import (
	"strconv"
	"strings"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

func init() { sdk.Register(newTransform) }

func main() {}

func newTransform(c config) (sdk.Handler, error) {
	body, err := newBodyEdit(c.ResponseBody)
	if err != nil {
		return nil, err
	}
	heads := headers{newHeaderEdit(c.Request), newHeaderEdit(c.Response)}
	if body == nil {
		// Without the body's method the host need not show bodies at all.
		return &heads, nil
	}
	return &bodies{heads, body, c.ResponseBody.MaxBytes}, nil
}

// headers changes heads alone.
type headers struct {
	request, response headerEdit
}

func (h *headers) OnRequest(r *sdk.Request) sdk.Action {
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

// bodies changes heads and the bodies of answers.
type bodies struct {
	headers
	edit     *bodyEdit
	maxBytes int
}

// editable marks an exchange whose answer is to be changed.
var editable any = new(struct{ _ byte })

func (b *bodies) OnRequest(r *sdk.Request) sdk.Action {
	// A compressed answer, or a part of one, could not be changed.
	r.Header.Del("accept-encoding")
	r.Header.Del("range")
	return b.headers.OnRequest(r)
}

func (b *bodies) OnResponse(r *sdk.Response) sdk.Action {
	if !r.End && b.canEdit(r) {
		r.State = editable
		// The length will be another, and the bytes no longer those that the
		// validators and digests speak of.
		for _, name := range [...]string{"content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"} {
			r.Header.Del(name)
		}
	}
	return b.headers.OnResponse(r)
}

func (b *bodies) canEdit(r *sdk.Response) bool {
	if r.Header.Get("content-encoding") != "" || r.Header.Get("content-range") != "" {
		return false
	}
	if n, err := strconv.Atoi(r.Header.Get("content-length")); err == nil && n > b.maxBytes {
		return false
	}
	return isJSON(r.Header.Get("content-type"))
}

// isJSON knows application/json and its relatives, "…+json".
func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

func (b *bodies) OnResponseBody(r *sdk.Response) sdk.Action {
	if r.State != editable {
		return sdk.Continue
	}
	if r.Body.Len() > b.maxBytes {
		r.State = nil // What was held goes out as it is, and so does the rest.
		return sdk.Continue
	}
	if !r.End {
		return sdk.Hold
	}
	if changed, ok := b.edit.apply(r.Body.Bytes()); ok {
		r.Body.Replace(changed)
	}
	return sdk.Continue
}
