package http3

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// The kinds of unidirectional streams (RFC 9114, section 6.2; RFC 9204, section
// 4.2).
const (
	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// uniStreams are those that the peer may open once each.
type uniStreams struct {
	mu   sync.Mutex
	seen [4]bool
}

// first reports whether there was none of that kind.
func (u *uniStreams) first(kind uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.seen[kind]
	u.seen[kind] = true
	return !was
}

func (l *link) acceptUni() {
	for {
		q, err := l.quic.AcceptUniStream(context.Background())
		if err != nil {
			return // the connection is closed
		}
		l.running.Go(func() {
			if err := l.readUni(q); err != nil {
				l.failFor(err)
			}
		})
	}
}

// readUni reads what the peer says beside requests and answers.
func (l *link) readUni(q *quic.ReceiveStream) error {
	in := &input{from: q}
	defer in.free()
	_ = q.SetReadDeadline(time.Now().Add(l.patience)) // of no use where the stream is gone
	kind, err := in.varint()
	if err != nil {
		l.ignore(q)
		return nil // it ended before it said what it is for
	}
	_ = q.SetReadDeadline(time.Time{})
	switch kind {
	case streamControl, streamEncoder, streamDecoder:
		if !l.uni.first(kind) {
			return &connError{codeStreamCreation, "a stream that there is one of is opened again"}
		}
	case streamPush:
		if l.goAway != nil { // it was given no number to push under
			return &connError{codeID, "there is no push to come"}
		}
		return &connError{codeStreamCreation, "a client does not push"}
	default:
		l.ignore(q)
		return nil
	}
	switch kind {
	case streamControl:
		err = l.readControl(in)
	case streamEncoder:
		err = readInstructions(in, encoderInstruction, codeEncoderStream)
	case streamDecoder:
		err = readInstructions(in, decoderInstruction, codeDecoderStream)
	}
	if isGone(l.quic) || l.failFor(err) {
		return nil
	}
	return &connError{codeClosedCritical, "a stream that must stay is closed"}
}

func isGone(q *quic.Conn) bool { return q.Context().Err() != nil }

// ignore gives up a stream of a kind that is not known.
func (l *link) ignore(q *quic.ReceiveStream) {
	q.CancelRead(quic.StreamErrorCode(codeStreamCreation))
	q.ReleaseStreamCredit()
	l.charge(1)
}

// readControl reads the peer's control stream to its end.
func (l *link) readControl(in *input) error {
	control := controlReader{gone: quicvarint.Max, goAway: l.goAway}
	for {
		kind, length, err := in.frame()
		if err != nil {
			return err
		}
		if !known(kind) {
			l.charge(1 + int(min(length/pageSize, patience)))
			if err := in.skip(length); err != nil {
				return err
			}
			continue
		}
		if length > maxControl {
			return &connError{codeExcessiveLoad, "a frame of the control stream is too large"}
		}
		payload, err := in.take(int(length))
		if err != nil {
			return err
		}
		if err := control.frame(kind, payload); err != nil {
			return err
		}
		if len(in.b) == 0 {
			in.free() // it may be long until there is more
		}
		l.charge(1)
	}
}

// maxControl bounds frames of the control stream.
const maxControl = 4 << 10

// controlReader is what the peer's control stream has said.
type controlReader struct {
	settled bool
	gone    uint64 // as the last GOAWAY says
	maxPush uint64
	goAway  func(from uint64) // the peer is a server; nil: a client
}

func (r *controlReader) frame(kind uint64, payload []byte) error {
	switch {
	case !r.settled && kind != frameSettings:
		return &connError{codeMissingSettings, "the first frame is no SETTINGS"}
	case r.settled && kind == frameSettings:
		return &connError{codeFrameUnexpected, "SETTINGS are repeated"}
	}
	switch kind {
	case frameSettings:
		r.settled = true
		return checkSettings(payload)
	case frameGoAway:
		err := notMore(&r.gone, payload)
		if err == nil && r.goAway != nil {
			r.goAway(r.gone)
		}
		return err
	case frameMaxPush:
		if r.goAway != nil {
			break
		}
		return notLess(&r.maxPush, payload)
	case frameCancelPush:
		if _, err := sole(payload); err != nil {
			return err
		}
		return &connError{codeID, "there is no push to cancel"}
	}
	return &connError{codeFrameUnexpected, "a frame has no place on the control stream"}
}

// sole reads a payload that is one number.
func sole(payload []byte) (uint64, error) {
	v, n, err := quicvarint.Parse(payload)
	if err != nil || n != len(payload) {
		return 0, &connError{codeFrame, "a frame is of a wrong length"}
	}
	return v, nil
}

func notMore(than *uint64, payload []byte) error {
	v, err := sole(payload)
	if err == nil && v > *than {
		err = &connError{codeID, "GOAWAY takes back what it said"}
	}
	*than = v
	return err
}

func notLess(than *uint64, payload []byte) error {
	v, err := sole(payload)
	if err == nil && v < *than {
		err = &connError{codeID, "MAX_PUSH_ID takes back what it said"}
	}
	*than = v
	return err
}

// maxSettings bounds how many settings there may be.
const maxSettings = 64

// checkSettings looks at what the peer has set. None of it changes what it is
// sent: sections are small and refer to no table.
func checkSettings(payload []byte) error {
	var seen [maxSettings]uint64
	for n := 0; len(payload) > 0; n++ {
		id, size, err := quicvarint.Parse(payload)
		if err != nil {
			return &connError{codeFrame, "SETTINGS are not whole"}
		}
		value, more, err := quicvarint.Parse(payload[size:])
		if err != nil {
			return &connError{codeFrame, "SETTINGS are not whole"}
		}
		payload = payload[size+more:]
		if n == maxSettings {
			return &connError{codeExcessiveLoad, "there are too many settings"}
		}
		for _, before := range seen[:n] {
			if before == id {
				return &connError{codeSettings, "a setting is repeated"}
			}
		}
		seen[n] = id
		if err := checkSetting(id, value); err != nil {
			return err
		}
	}
	return nil
}

func checkSetting(id, value uint64) error {
	switch id {
	case 0x2, 0x3, 0x4, 0x5:
		return &connError{codeSettings, "a setting is one of HTTP/2"}
	case 0x8, 0x33: // extended CONNECT, datagrams
		if value > 1 {
			return &connError{codeSettings, "a setting is neither on nor off"}
		}
	}
	return nil
}

// readInstructions reads a stream of QPACK's instructions. Since there is no
// table, few of them mean anything.
func readInstructions(in *input, check func(first byte) bool, bad code) error {
	for {
		if len(in.b) == 0 {
			in.free()
			if err := in.fill(); err != nil {
				return err
			}
		}
		if !check(in.b[0]) {
			return &connError{bad, "an instruction is for a table that there is not"}
		}
		if err := in.skipInt(); err != nil {
			return err
		}
	}
}

// encoderInstruction: the table's capacity is set, to nothing.
func encoderInstruction(first byte) bool { return first == 0x20 }

// decoderInstruction: a stream was cancelled.
func decoderInstruction(first byte) bool { return first&0xc0 == 0x40 }

// skipInt drops an integer with a prefix of at most six bits.
func (in *input) skipInt() error {
	const most = 0x3f
	ended := in.b[0]&most != most || in.b[0]&0xe0 == 0x20
	in.b = in.b[1:]
	for i := 0; !ended; i++ {
		if len(in.b) == 0 {
			if err := in.fill(); err != nil {
				return inFrame(err)
			}
		}
		if ended = in.b[0]&0x80 == 0; i > 9 {
			return io.ErrUnexpectedEOF
		}
		in.b = in.b[1:]
	}
	return nil
}
