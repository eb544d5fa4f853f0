package nodeport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// A stream between servers begins with a byte from who opened it, so that the
// other end hears of it, and a byte in answer: taken, or why not. After that it
// belongs to its users.
const (
	greeting      = 0x01
	answerTaken   = 0x01
	answerBusy    = 0x02
	answerUnknown = 0x03
	answerRefused = 0x04 // and a byte: how long the reason is that follows

	greetTimeout = 5 * time.Second
)

var (
	// errBusy is the cause when a server has more streams waiting than it takes.
	errBusy    = errors.New("the server has too many streams waiting")
	errUnknown = errors.New("the server does not know these streams")
)

// RefusedError is why a server takes no streams from this one, in its words:
// trying again does not help.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "refused: " + e.Reason }

// readRefusal reads the reason behind the answer.
func readRefusal(conn io.Reader) error {
	var size [1]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	reason := make([]byte, size[0])
	if _, err := io.ReadFull(conn, reason); err != nil {
		return err
	}
	return &RefusedError{strings.ToValidUTF8(string(reason), "?")}
}

func writeRefusal(conn io.Writer, why error) error {
	reason := why.Error()
	reason = reason[:min(len(reason), 255)]
	_, err := conn.Write(append([]byte{answerRefused, byte(len(reason))}, reason...))
	return err
}

// greet opens a conversation.
func greet(conn io.ReadWriter) error {
	if _, err := conn.Write([]byte{greeting}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case answerTaken:
		return nil
	case answerBusy:
		return errBusy
	case answerRefused:
		return readRefusal(conn)
	}
	return fmt.Errorf("%w (answer %d)", errUnknown, answer[0])
}

// receive is the other side: check says why the peer's streams are not taken,
// take finds room for this one, and may not block; after an error there is none
// taken.
func receive(conn io.ReadWriter, check func() error, take func() bool, giveBack func()) error {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return err
	}
	if first[0] != greeting {
		_, err := conn.Write([]byte{answerUnknown})
		return errors.Join(fmt.Errorf("a stream begins with byte %d", first[0]), err)
	}
	if why := check(); why != nil {
		return errors.Join(why, writeRefusal(conn, why))
	}
	if !take() {
		_, err := conn.Write([]byte{answerBusy})
		return errors.Join(errBusy, err)
	}
	if _, err := conn.Write([]byte{answerTaken}); err != nil {
		giveBack()
		return err
	}
	return nil
}

// quicStream is a QUIC stream as a net.Conn.
type quicStream struct {
	*quic.Stream
	conn *quic.Conn

	writing sync.Mutex
	close   func() error
}

func newQUICStream(conn *quic.Conn, stream *quic.Stream) *quicStream {
	s := &quicStream{Stream: stream, conn: conn}
	s.close = sync.OnceValue(s.closeBoth)
	return s
}

func (s *quicStream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.Stream.Write(p)
}

// Close ends both directions. What was written still arrives; a Write that
// waits is ended.
func (s *quicStream) Close() error { return s.close() }

func (s *quicStream) closeBoth() error {
	s.CancelRead(0)
	if !s.writing.TryLock() {
		s.CancelWrite(0)
		return nil
	}
	defer s.writing.Unlock()
	return s.Stream.Close()
}

func (s *quicStream) LocalAddr() net.Addr  { return s.conn.LocalAddr() }
func (s *quicStream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// tcpStream is a TLS connection that is one stream.
type tcpStream struct {
	*tls.Conn
	closed chan struct{}
	close  func() error
}

func newTCPStream(conn *tls.Conn, leave func()) *tcpStream {
	s := &tcpStream{Conn: conn, closed: make(chan struct{})}
	s.close = sync.OnceValue(func() error {
		close(s.closed)
		leave()
		return conn.Close()
	})
	return s
}

func (s *tcpStream) Close() error { return s.close() }
