package http2

import "github.com/weirmesh/weir/proxy/exchange"

// Writer is how a [Talker] answers: Head, then Send as often as it takes, then
// End. Head that is the last says it all. One goroutine may use it.
type Writer stream

// Head sends the head of the answer. length is the body's, -1 where it is not
// known; last: there is none. It is written with what follows.
func (w *Writer) Head(r *exchange.Response, length int64, last bool) error {
	s := (*stream)(w)
	return s.sendHead(r, length, last && w.Bodyless(r.Status), last)
}

// Bodyless: whatever the answer says, it has no body.
func (w *Writer) Bodyless(status int) bool { return w.head || status == 204 || status == 304 }

// Send sends a part of the body, which is copied. It waits for room.
func (w *Writer) Send(p []byte) error {
	s := (*stream)(w)
	return s.sendData(p, false)
}

// Flush has what was sent written soon, and does not wait for it: what follows at
// once goes out with it.
func (w *Writer) Flush() error {
	s := (*stream)(w)
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.conn.out.flush(false)
	return s.dead
}

// End ends the body, with the trailers if there are any.
func (w *Writer) End(trailers *exchange.Fields) error {
	s := (*stream)(w)
	return s.sendEnd(trailers)
}
