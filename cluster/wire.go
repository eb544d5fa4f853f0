package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/weirmesh/weir/cluster/roster"
)

// The calls of members to one another.
const (
	methodPropose = 1 + iota
	methodRead
	methodRoster
	methodJoin
	methodRemove
	methodTransfer
)

// The codes of their answers.
const (
	codeDone = iota
	codeNotLeader
	codeUnknown
	codeTooNew
	codeNoSpace
	codeRefused
	codeNotDone
)

// encodeError makes an answer of an error.
func encodeError(err error) (code byte, text []byte) {
	switch {
	case errors.Is(err, ErrUnknown): // whatever else it is
		code = codeUnknown
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrClosed):
		return codeNotLeader, nil
	case errors.Is(err, ErrTooNew):
		code = codeTooNew
	case errors.Is(err, ErrNoSpace):
		code = codeNoSpace
	case errors.Is(err, ErrRefused):
		code = codeRefused
	default:
		code = codeNotDone
	}
	return code, []byte(err.Error())
}

// farError is another member's error, in its words.
type farError struct {
	kind error
	text string
}

func (e *farError) Error() string { return e.text }
func (e *farError) Unwrap() error { return e.kind }

var errFar = errors.New("the other member failed")

func decodeError(code byte, text []byte) error {
	kind := errFar
	switch code {
	case codeDone:
		return nil
	case codeNotLeader:
		return ErrNotLeader
	case codeUnknown:
		kind = ErrUnknown
	case codeTooNew:
		kind = ErrTooNew
	case codeNoSpace:
		kind = ErrNoSpace
	case codeRefused:
		kind = ErrRefused
	case codeNotDone:
	default:
		return fmt.Errorf("%w: answer of kind %d", ErrUnknown, code)
	}
	return &farError{kind: kind, text: string(text)}
}

var errMessage = errors.New("read message: it is cut short, or makes no sense")

// reader takes a message apart; after the first mistake it gives zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.err = nil, errMessage
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte {
	size := r.number()
	if size > uint64(len(r.b)) {
		r.b, r.err = nil, errMessage
		return nil
	}
	v := r.b[:size]
	r.b = r.b[size:]
	return v
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errMessage
	}
	return r.err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// forwarded is a command on its way to the leader; its caller waits so long.
type forwarded struct {
	command []byte
	timeout time.Duration // 0: for ever
}

func encodeForwarded(commands []forwarded) []byte {
	b := binary.AppendUvarint(nil, uint64(len(commands)))
	for _, c := range commands {
		b = binary.AppendUvarint(b, uint64((max(c.timeout, 0)+time.Millisecond-1)/time.Millisecond))
		b = appendBytes(b, c.command)
	}
	return b
}

// maxTimeout bounds what another member says that its caller waits.
const maxTimeout = 365 * 24 * time.Hour

func decodeForwarded(b []byte) ([]forwarded, error) {
	r := &reader{b: b}
	var commands []forwarded
	for range min(r.number(), maxWaiting) {
		timeout := min(r.number(), uint64(maxTimeout/time.Millisecond))
		command := r.bytes()
		if r.err != nil {
			return nil, r.err
		}
		commands = append(commands, forwarded{command, time.Duration(timeout) * time.Millisecond})
	}
	return commands, r.end()
}

// decided is what became of a forwarded command: where it stands, or why not.
type decided struct {
	code  byte
	text  []byte
	index uint64
	place int
}

func encodeDecided(all []decided) []byte {
	b := binary.AppendUvarint(nil, uint64(len(all)))
	for _, d := range all {
		b = append(b, d.code)
		if d.code != codeDone {
			b = appendBytes(b, d.text)
			continue
		}
		b = binary.AppendUvarint(b, d.index)
		b = binary.AppendUvarint(b, uint64(d.place))
	}
	return b
}

func decodeDecided(b []byte) ([]decided, error) {
	r := &reader{b: b}
	var all []decided
	for range min(r.number(), maxWaiting) {
		if len(r.b) == 0 {
			return nil, errMessage
		}
		d := decided{code: r.b[0]}
		if r.b = r.b[1:]; d.code != codeDone {
			d.text = r.bytes()
		} else {
			d.index = r.number()
			d.place = int(min(r.number(), maxWaiting))
		}
		if r.err != nil {
			return nil, r.err
		}
		all = append(all, d)
	}
	return all, r.end()
}

// membership is what members tell each other of themselves: a request of the
// roster, or one to be let in.
type membership struct {
	// from is who says it.
	from string
	// relayed: the receiver must be the leader.
	relayed bool
	entries []roster.Entry
	// at is the index of the newest configuration that the sender has.
	at uint64
	// blank: the sender has no log.
	blank bool
	// out: the sender knows the receiver for none of the members.
	out bool
}

const (
	flagRelayed = 1 << iota
	flagOut
	flagBlank
)

func encodeMembership(m membership) []byte {
	b := appendBytes(nil, []byte(m.from))
	var flags uint64
	if m.relayed {
		flags |= flagRelayed
	}
	if m.out {
		flags |= flagOut
	}
	if m.blank {
		flags |= flagBlank
	}
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendUvarint(b, m.at)
	return roster.Append(b, m.entries)
}

func decodeMembership(b []byte) (m membership, err error) {
	r := &reader{b: b}
	m.from = string(r.bytes())
	flags := r.number()
	m.relayed, m.out, m.blank = flags&flagRelayed != 0, flags&flagOut != 0, flags&flagBlank != 0
	if m.at = r.number(); r.err != nil {
		return m, r.err
	}
	m.entries, err = roster.Decode(r.b)
	return m, err
}

// order is a request of an operator: to remove a member, or that it lead.
type order struct {
	member string
	force  bool
}

func encodeOrder(o order) []byte {
	b := appendBytes(nil, []byte(o.member))
	if o.force {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeOrder(b []byte) (o order, err error) {
	r := &reader{b: b}
	o.member = string(r.bytes())
	o.force = r.number() == 1
	return o, r.end()
}
