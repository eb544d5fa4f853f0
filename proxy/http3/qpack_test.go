package http3_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/quicvarint"
)

// decodeAnswer reads the first HEADERS frame of an answer with the library, not
// with what has written it.
func decodeAnswer(t testing.TB, b []byte) map[string]string {
	t.Helper()
	r := bytes.NewReader(b)
	kind, err := quicvarint.Read(r)
	if err != nil || kind != 1 {
		t.Fatalf("the answer begins with %q", b)
	}
	length, err := quicvarint.Read(r)
	if err != nil || length > uint64(r.Len()) {
		t.Fatalf("the answer begins with %q", b)
	}
	payload := make([]byte, length)
	_, _ = io.ReadFull(r, payload) // they are there
	fields := map[string]string{}
	for next := qpack.NewDecoder().Decode(payload); ; {
		f, err := next()
		if err == io.EOF {
			return fields
		}
		if err != nil {
			t.Fatal(err)
		}
		fields[f.Name] = f.Value
	}
}
