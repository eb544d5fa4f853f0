package nodeapi

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// pieces are read one at a time.
type pieces []string

func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*p)[0])
	if (*p)[0] = (*p)[0][n:]; (*p)[0] == "" {
		*p = (*p)[1:]
	}
	return n, nil
}

func (*pieces) Close() error { return nil }

func TestMessagesAreReadWhole(t *testing.T) {
	for name, c := range map[string]struct {
		written pieces
		buffer  int
		want    []string
	}{
		"a prefix and a message":        {pieces{"\x00\x00\x00\x00\x03", "abc", "\x00\x00\x00\x00\x01", "d"}, 64, []string{"\x00\x00\x00\x00\x03abc", "\x00\x00\x00\x00\x01d"}},
		"a message in pieces":           {pieces{"\x00\x00", "\x00\x00\x03a", "b", "c"}, 64, []string{"\x00\x00\x00\x00\x03abc"}},
		"an empty message":              {pieces{"\x00\x00\x00\x00\x00"}, 64, []string{"\x00\x00\x00\x00\x00"}},
		"more than is asked for":        {pieces{"\x00\x00\x00\x00\x03", "abc"}, 6, []string{"\x00\x00\x00\x00\x03a", "bc"}},
		"less than a prefix asked for":  {pieces{"\x00\x00\x00\x00\x03", "abc"}, 4, []string{"\x00\x00\x00\x00", "\x03", "abc"}},
		"a message that is cut short":   {pieces{"\x00\x00\x00\x00\x03", "ab"}, 64, []string{"\x00\x00\x00\x00\x03ab"}},
		"a prefix that is cut short":    {pieces{"\x00\x00"}, 64, []string{"\x00\x00"}},
		"a length that is beyond sense": {pieces{"\x00\xff\xff\xff\xff", "ab"}, 64, []string{"\x00\xff\xff\xff\xffab"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &messages{body: &c.written}
			var got []string
			for buffer := make([]byte, c.buffer); ; {
				n, err := m.Read(buffer)
				if n > 0 {
					got = append(got, string(buffer[:n]))
				}
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// writes notes what it is given, piece by piece.
type writes struct {
	*httptest.ResponseRecorder
	pieces []string
	fail   error
}

func (w *writes) Write(p []byte) (int, error) {
	w.pieces = append(w.pieces, string(p))
	return len(p), w.fail
}

func TestAnswersAreWrittenInOnePiece(t *testing.T) {
	w := &writes{ResponseRecorder: httptest.NewRecorder()}
	g := &gathering{ResponseWriter: w}
	write := func(s string) {
		t.Helper()
		if n, err := io.WriteString(g, s); n != len(s) || err != nil {
			t.Fatalf("%d of %d, %v", n, len(s), err)
		}
	}
	write("pre")
	write("fix")
	g.Flush()
	if !w.Flushed {
		t.Error("what is beneath was not flushed")
	}
	g.Flush()
	large := strings.Repeat("x", maxGathered)
	write("head")
	write(large)
	write("end")
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(w.pieces, "|"), "prefix|head|"+large+"|end"; got != want {
		t.Errorf("%d bytes in %d pieces, want %d", len(got), len(w.pieces), len(want))
	}
}

// What came of a Flush is told by whatever comes next.
func TestAnswersThatCannotBeWritten(t *testing.T) {
	broken := errors.New("broken")
	w := &writes{ResponseRecorder: httptest.NewRecorder(), fail: broken}
	g := &gathering{ResponseWriter: w}
	_, _ = io.WriteString(g, "one")
	http.NewResponseController(g).Flush()
	if _, err := io.WriteString(g, "two"); err != broken || g.err != broken || len(w.pieces) != 1 {
		t.Errorf("%v, %v, pieces %q", err, g.err, w.pieces)
	}
}

// However many streams send a part, it was encoded once: to encode it again is
// to copy bytes.
func TestPartsAreEncodedOnce(t *testing.T) {
	f := encodeChange(at(1, 0), at(2, 1), []*weirv1.Resource{route("r", "public", "books")}, nil)
	for _, part := range f.parts {
		if part.GetRevision() != 0 || len(part.GetPuts()) != 0 || len(part.ProtoReflect().GetUnknown()) == 0 {
			t.Errorf("it has fields to encode: %v", part)
		}
		if got := arrived(t, part); got.GetRevision() != 2 || len(got.GetPuts()) != 1 {
			t.Errorf("what arrives is %v", got)
		}
		into := make([]byte, 0, 1024)
		if n := testing.AllocsPerRun(100, func() { _, _ = proto.MarshalOptions{}.MarshalAppend(into, part) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
