package nodeapi

import (
	"encoding/binary"
	"io"
	"net/http"
	"strings"

	"github.com/weirmesh/weir/nodeport"
)

// A message of a stream is written in two pieces, its prefix and itself. Each
// piece would wake the connection, and often be a packet of its own, which the
// other side then acknowledges on the spot: for a thousand proxies that is half
// of what a change costs. What follows makes one piece of them.

// maxGathered is how much is copied to be written in one piece.
const maxGathered = 16 << 10

// gathering is a response that is written in one piece for each Flush. Who
// flushes is not told what came of it: the next Write says it, and err.
type gathering struct {
	http.ResponseWriter
	held []byte
	err  error
}

// Write implements http.ResponseWriter.
func (g *gathering) Write(p []byte) (n int, err error) {
	switch {
	case g.err != nil:
		return 0, g.err
	case len(g.held)+len(p) <= maxGathered:
		g.held = append(g.held, p...)
		return len(p), nil
	case g.release() != nil:
		return 0, g.err
	}
	n, g.err = g.ResponseWriter.Write(p)
	return n, g.err
}

func (g *gathering) release() error {
	if g.err == nil && len(g.held) > 0 {
		_, g.err = g.ResponseWriter.Write(g.held)
		g.held = g.held[:0]
	}
	return g.err
}

// Flush implements http.Flusher.
func (g *gathering) Flush() { _ = g.FlushError() }

// FlushError implements what http.ResponseController looks for.
func (g *gathering) FlushError() error {
	if g.release() == nil {
		g.err = http.NewResponseController(g.ResponseWriter).Flush()
	}
	return g.err
}

// Unwrap lets http.ResponseController find what is beneath.
func (g *gathering) Unwrap() http.ResponseWriter { return g.ResponseWriter }

// wholeMessages is a link that does the same for requests: their bodies are read
// from a pipe, as they are written to it.
type wholeMessages struct{ *nodeport.Link }

// Do sends a request.
func (w wholeMessages) Do(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/connect+") && r.Body != nil {
		r.Body = &messages{body: r.Body}
	}
	return w.Link.Do(r)
}

// RoundTrip is Do, as an HTTP transport has it.
func (w wholeMessages) RoundTrip(r *http.Request) (*http.Response, error) { return w.Do(r) }

// prefixSize is of what stands before each message: flags, and its length.
const prefixSize = 5

// messages reads a prefix together with the message behind it.
type messages struct {
	body io.ReadCloser
	left int // of the message that is being read
}

// Read implements io.Reader.
func (m *messages) Read(p []byte) (int, error) {
	if m.left > 0 || len(p) < prefixSize {
		n, err := m.body.Read(p)
		m.left -= n
		return n, err
	}
	n, err := io.ReadFull(m.body, p[:prefixSize])
	if err != nil {
		return n, ended(err)
	}
	m.left = int(binary.BigEndian.Uint32(p[1:]))
	more, err := io.ReadFull(m.body, p[prefixSize:min(len(p), prefixSize+m.left)])
	m.left -= more
	return n + more, ended(err)
}

// ended leaves it to whoever reads the message to find it cut short.
func ended(err error) error {
	if err == io.ErrUnexpectedEOF {
		return io.EOF
	}
	return err
}

// Close implements io.Closer.
func (m *messages) Close() error { return m.body.Close() }
