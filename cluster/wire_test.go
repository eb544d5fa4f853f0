package cluster

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weirmesh/weir/cluster/roster"
)

// FuzzMessages: what another member sends is an error or a message, never a
// panic; a message comes back as it was.
func FuzzMessages(f *testing.F) {
	f.Add(byte(0), encodeForwarded([]forwarded{{[]byte("c"), time.Second}, {[]byte("d"), 0}}))
	f.Add(byte(1), encodeDecided([]decided{{code: codeDone, index: 7, place: 1}, {code: codeUnknown, text: []byte("why")}}))
	f.Add(byte(2), encodeMembership(membership{from: "a", relayed: true, blank: true, at: 7, entries: []roster.Entry{{Name: "b", Address: "b:1", Newest: 13, Version: 4}}}))
	f.Add(byte(3), encodeOrder(order{member: "a", force: true}))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		switch kind % 4 {
		case 0:
			again(t, data, decodeForwarded, encodeForwarded)
		case 1:
			again(t, data, decodeDecided, encodeDecided)
		case 2:
			again(t, data, decodeMembership, encodeMembership)
		case 3:
			again(t, data, decodeOrder, encodeOrder)
		}
		_ = commandID(data)
		_ = commandKind(data)
		for range commandsIn(data) {
		}
	})
}

func again[M any](t *testing.T, data []byte, decode func([]byte) (M, error), encode func(M) []byte) {
	m, err := decode(data)
	if err != nil {
		return
	}
	twice, err := decode(encode(m))
	if diff := cmp.Diff(m, twice, cmp.Exporter(exportAll), cmp.Comparer(sameBytes)); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

func sameBytes(a, b []byte) bool { return string(a) == string(b) }

func TestErrorsTravel(t *testing.T) {
	for _, want := range []error{ErrNotLeader, ErrUnknown, ErrTooNew, ErrNoSpace, ErrRefused} {
		code, text := encodeError(errors.Join(errors.New("because"), want))
		got := decodeError(code, text)
		if !errors.Is(got, want) {
			t.Errorf("%v became %v", want, got)
		}
		if want != ErrUnknown && errors.Is(got, ErrUnknown) {
			t.Errorf("%v became unknown", want)
		}
	}
	for _, also := range []error{ErrNotLeader, ErrClosed, ErrRefused} {
		if err := decodeError(encodeError(errors.Join(also, ErrUnknown))); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v and unknown became %v", also, err)
		}
	}
	if err := decodeError(encodeError(ErrClosed)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a member that closes says %v: another can be asked", err)
	}
	if err := decodeError(77, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("an answer that is not known is %v", err)
	}
	if err := decodeError(encodeError(errors.New("x"))); errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotLeader) {
		t.Errorf("what was not done is %v", err)
	}
}

func exportAll(reflect.Type) bool { return true }
