package http3

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/quic-go/qpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// FuzzSection compares the decoder with quic-go's, and what the encoder makes of
// the fields with what they were.
func FuzzSection(f *testing.F) {
	f.Add([]byte("\x00\x00\xd1\xd7\x50\x01a\xc1\x23abc\x03xyz"))
	f.Add([]byte("\x00\x00\x51\x81\x1f"))
	f.Add([]byte("\x00\x00\x2f\x00name\x7f\x00"))
	f.Add([]byte("\x01\x00\x80\x10\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		var got []qpack.HeaderField
		err := d.decode(b, func(name, value string) bool {
			got = append(got, qpack.HeaderField{Name: name, Value: value})
			return true
		})
		want, wantErr := theirs(b)
		if tooLarge(want) {
			return // ours reads no further
		}
		if (err == nil) != (wantErr == nil) && !(len(b) > 1 && b[0] == 0 && b[1] != 0) { // a base that nothing refers to
			t.Fatalf("%q: %v, theirs %v", b, err, wantErr)
		}
		if err != nil || wantErr != nil {
			return
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: %v, theirs %v", b, got, want)
		}
		encoded := appendPrefix(nil)
		for _, field := range got {
			encoded = appendField(encoded, []byte(field.Name), []byte(field.Value))
		}
		again, err := theirs(encoded)
		for i := range got {
			name := []byte(got[i].Name)
			section.Lower(name)
			got[i].Name = string(name)
		}
		if err != nil || !slices.Equal(again, got) {
			t.Fatalf("%v became %v, %v", got, again, err)
		}
	})
}

func theirs(b []byte) (fields []qpack.HeaderField, err error) {
	for next := qpack.NewDecoder().Decode(b); ; {
		field, err := next()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		fields = append(fields, field)
	}
}

func tooLarge(fields []qpack.HeaderField) bool {
	size := 0
	for _, f := range fields {
		size += len(f.Name) + len(f.Value) + 32
	}
	return size > maxSection
}

// FuzzStreams reads anything as each kind of stream: what is read ends, with an
// error that is known.
func FuzzStreams(f *testing.F) {
	f.Add(uint8(0), []byte("\x04\x02\x06\x00\x07\x01\x00"), uint8(3))
	f.Add(uint8(1), []byte("\x20\x20"), uint8(1))
	f.Add(uint8(2), []byte("\x45\x7f\x80\x01"), uint8(2))
	f.Add(uint8(3), []byte("\x01\x04\x00\x00\xd1\xd7\x00\x03abc"), uint8(5))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte, part uint8) {
		in := &input{from: &inParts{b, max(1, int(part))}}
		defer in.free()
		c := &Conn{cfg: Config{}}
		var err error
		switch kind % 4 {
		case 0:
			c.guard.spent = -1 << 40 // there is no connection to end
			err = c.readControl(in)
		case 1:
			err = readInstructions(in, encoderInstruction, codeEncoderStream)
		case 2:
			err = readInstructions(in, decoderInstruction, codeDecoderStream)
		case 3:
			c.guard.spent = -1 << 40
			err = readBody(c, in)
		}
		var conn *connError
		var stream *streamError
		if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.As(err, &conn) && !errors.As(err, &stream) {
			t.Fatalf("%q ends with %v", b, err)
		}
	})
}

// readBody reads what follows a head.
func readBody(c *Conn, in *input) error {
	s := &message{link: &c.link, in: *in, declared: -1}
	for {
		if err := s.advance(); err != nil {
			return err
		}
		if s.over {
			return io.EOF
		}
		if err := s.in.skip(s.left); err != nil {
			return err
		}
		s.left = 0
	}
}

// inParts reads a few bytes at a time.
type inParts struct {
	b []byte
	n int
}

func (r *inParts) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.b)
	r.b = r.b[n:]
	return n, nil
}

// The static table has its 99 entries, and all that is encoded is found there.
func TestStaticTable(t *testing.T) {
	if len(static) != 99 || static[17].Value != "GET" || static[98].Name != "x-frame-options" {
		t.Errorf("%d entries, %v", len(static), static[len(static)-1])
	}
	for status, want := range map[int]string{200: "\xd9", 404: "\xdb", 103: "\xd8", 201: "\x5f\x09\x03201"} {
		if got := appendStatus(nil, status); !bytes.Equal(got, []byte(want)) {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
	}
}

func TestFieldsOfOneHop(t *testing.T) {
	var fields exchange.Fields
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "TE", "Host", "Content-Length", "X-Kept"} {
		fields.Add([]byte(name), []byte("1"))
	}
	b, announced := appendFields(appendPrefix(nil), &fields)
	got, err := theirs(b)
	if err != nil || len(got) != 1 || got[0].Name != "x-kept" || string(announced) != "1" {
		t.Errorf("got %v, %q, %v", got, announced, err)
	}
}
