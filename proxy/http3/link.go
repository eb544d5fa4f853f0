package http3

import (
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// link is what both sides of a connection have: the streams beside those of
// exchanges, and what the peer may cost.
type link struct {
	quic     *quic.Conn
	patience time.Duration // with a peer that has opened a stream
	guard    guard
	running  sync.WaitGroup // streams of exchanges, and those who read from the peer's others
	uni      uniStreams
	control  *quic.SendStream  // ours
	goAway   func(from uint64) // the peer is a server, and has said that; nil: it is a client
}

// settingSection is the largest section that is read (RFC 9114, section 7.2.4.1).
const settingSection = 0x6

// greet opens our control stream and sends our settings. The table of QPACK is
// empty unless a setting says otherwise.
func (l *link) greet() error {
	control, err := l.quic.OpenUniStream()
	if err != nil {
		if !isGone(l.quic) {
			l.fail(&connError{codeClosedCritical, "there is no room for a control stream"})
		}
		return err
	}
	l.control = control
	payload := quicvarint.Append([]byte{settingSection}, maxSection)
	b := append([]byte{streamControl, frameSettings, byte(len(payload))}, payload...)
	_, err = control.Write(b)
	return err
}

// sayGoAway says from which stream on nothing is served.
func (l *link) sayGoAway(id int64) {
	b := quicvarint.Append([]byte{frameGoAway}, uint64(quicvarint.Len(uint64(id))))
	// Some bytes: they are copied, unless the client has not read the last ones
	// for long, and is not told, then.
	_ = l.control.TryWriteAll(quicvarint.Append(b, uint64(id)))
}

// fail ends the connection for what the peer has done.
func (l *link) fail(e *connError) {
	_ = l.quic.CloseWithError(quic.ApplicationErrorCode(e.code), e.reason)
}

// failFor is fail for errors that may be of another kind, and reports whether it
// was of this one.
func (l *link) failFor(err error) bool {
	var e *connError
	if !errors.As(err, &e) {
		return false
	}
	l.fail(e)
	return true
}

// charge notes what the peer has cost, and disconnects it when that is too much.
func (l *link) charge(n int) {
	if err := l.guard.cost(n); err != nil {
		l.fail(err)
	}
}
