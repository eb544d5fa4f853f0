package handler

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http2"
)

// small is how much of an answer is held back, in case that is all: then its
// length is known.
const small = 4 << 10

// answer is the http.ResponseWriter of a call.
type answer struct {
	x      *exchange.Exchange
	out    *http2.Writer
	header http.Header

	status int    // 0: not said yet
	held   []byte // the body's beginning, as long as the head is not sent
	room   *[small]byte
	begun  bool  // the head is sent
	silent bool  // there is no body to send, whatever is written
	length int64 // of the body; -1: not known
	sent   int64
	err    error
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter. What the header holds now is what
// will be sent.
func (a *answer) WriteHeader(status int) {
	if a.status != 0 || status < 200 { // interim answers are not passed on
		return
	}
	a.status = status
	r := &a.x.Response
	r.Status, a.silent = status, a.out.Bodyless(status)
	for name, values := range a.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || name == "Trailer" {
			continue
		}
		for _, value := range values {
			r.Fields.Add(a.x.Copy(name), a.x.Copy(value))
		}
	}
	if a.header["Date"] == nil {
		var date [len(http.TimeFormat)]byte
		r.Fields.Add([]byte("Date"), a.x.CopyBytes(time.Now().UTC().AppendFormat(date[:0], http.TimeFormat)))
	}
	for name := range a.declared {
		r.Fields.Del(name)
		r.Fields.Add([]byte("Trailer"), a.x.Copy(name))
	}
}

// declared yields the trailers that were announced as such.
func (a *answer) declared(yield func(name string) bool) {
	for _, list := range a.header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" && !yield(name) {
				return
			}
		}
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.err != nil:
		return 0, a.err
	case a.status == http.StatusNoContent, a.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case a.silent:
		a.guessType(p)
		return len(p), nil
	case !a.begun && len(a.held)+len(p) <= small:
		a.hold(p)
		return len(p), nil
	case a.begin(p) != nil || a.send(p) != nil:
		return 0, a.err
	}
	return len(p), nil
}

// rooms are where beginnings are held.
var rooms = sync.Pool{New: func() any { return new([small]byte) }}

func (a *answer) hold(p []byte) {
	if a.room == nil {
		a.room = rooms.Get().(*[small]byte)
		a.held = a.room[:0]
	}
	a.held = append(a.held, p...)
}

// release gives the room back once what it held was sent, which copies it.
func (a *answer) release() {
	if a.room != nil {
		rooms.Put(a.room)
		a.room, a.held = nil, nil
	}
}

// WriteString spares who has a string the copy.
func (a *answer) WriteString(s string) (int, error) { return a.Write([]byte(s)) }

// begin sends the head and what is held of the body; more is what follows.
func (a *answer) begin(more []byte) error {
	if a.begun || a.err != nil {
		return a.err
	}
	a.begun, a.length = true, -1
	if n, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 63); err == nil {
		a.length = n
	}
	a.guessType(more)
	if a.err = a.out.Head(&a.x.Response, a.length, false); a.err == nil && len(a.held) > 0 {
		a.err = a.send(a.held)
	}
	a.release()
	return a.err
}

func (a *answer) send(p []byte) error {
	if a.length >= 0 && a.sent+int64(len(p)) > a.length {
		a.err = http.ErrContentLength
	} else if a.err = a.out.Send(p); a.err == nil {
		a.sent += int64(len(p))
	}
	return a.err
}

// guessType says what the body looks like where the handler does not.
func (a *answer) guessType(more []byte) {
	r := &a.x.Response
	begin := a.held
	if len(begin) == 0 {
		begin = more
	}
	if len(begin) == 0 || r.Fields.Has("Content-Type") || a.header["Content-Type"] != nil || a.header["Content-Encoding"] != nil {
		return
	}
	r.Fields.Add([]byte("Content-Type"), a.x.Copy(http.DetectContentType(begin)))
}

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

// FlushError implements what http.ResponseController looks for.
func (a *answer) FlushError() error {
	a.WriteHeader(http.StatusOK)
	if a.silent {
		return nil
	}
	if err := a.begin(nil); err != nil {
		return err
	}
	return a.out.Flush()
}

// finish sends what is left once the handler has returned.
func (a *answer) finish() (sent int64, err error) {
	a.WriteHeader(http.StatusOK)
	if a.err != nil {
		return a.sent, a.err
	}
	trailers := a.trailers()
	r := &a.x.Response
	switch {
	case a.silent, !a.begun && len(a.held) == 0 && trailers == 0:
		return 0, a.out.Head(r, 0, true)
	case !a.begun && a.header["Content-Length"] == nil:
		a.header.Set("Content-Length", strconv.Itoa(len(a.held)))
	}
	if err := a.begin(nil); err != nil {
		return a.sent, err
	}
	if a.length > a.sent {
		return a.sent, io.ErrUnexpectedEOF
	}
	return a.sent, a.out.End(&r.Trailers)
}

// trailers moves those that the handler has set to the response.
func (a *answer) trailers() int {
	into := &a.x.Response.Trailers
	add := func(name string, values []string) {
		for _, value := range values {
			into.Add(a.x.Copy(name), a.x.Copy(value))
		}
	}
	for name := range a.declared {
		add(name, a.header[name])
	}
	for name, values := range a.header {
		if bare, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			add(bare, values)
		}
	}
	return into.Len()
}
