package jwks

import (
	"encoding/binary"
	"errors"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// state is what the sandboxes of a policy know of its keys: a value of the shared data.
// The keys are another, since nobody need read them again who has them.
type state struct {
	// source is a digest of where the keys come from.
	source uint32
	// generation counts sets of keys; 0: there are none.
	generation uint32
	// failures are those since keys were fetched last.
	failures uint32
	// Nanoseconds since 1970: when keys were fetched, and when somebody last began to;
	// until when someone is at it, and when it may be tried again.
	fetched, began, busy, retry int64
	// why the last try failed.
	why string
}

const stateHead = 3*4 + 4*8

func (s *state) append(b []byte) []byte {
	for _, n := range [...]uint32{s.source, s.generation, s.failures} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, n := range [...]int64{s.fetched, s.began, s.busy, s.retry} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return append(b, s.why...)
}

// readState reads what append has written. Anything else is as if there was nothing, and
// so is what is of another source: the policy's configuration has changed.
func readState(b []byte, source uint32) state {
	if foreign(b, source) {
		return state{source: source}
	}
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[3*4+8*i:])) }
	return state{
		source: source, generation: binary.LittleEndian.Uint32(b[4:]), failures: binary.LittleEndian.Uint32(b[8:]),
		fetched: at(0), began: at(1), busy: at(2), retry: at(3), why: string(b[stateHead:]),
	}
}

func foreign(b []byte, source uint32) bool {
	return len(b) < stateHead || binary.LittleEndian.Uint32(b) != source
}

// load returns the state and its version.
func (s *Source) load() (state, uint32, error) {
	value, version, err := sdk.GetShared(s.key)
	return readState(value, s.source), version, err
}

// claim marks that this sandbox is about to fetch the keys, unless another one is, or
// was faster.
func (s *Source) claim(st state, version uint32, now int64) bool {
	st.began, st.busy = now, now+int64(s.timeout()+slack)
	err := sdk.SetShared(s.key, st.append(nil), version)
	if err != nil && !errors.Is(err, sdk.ErrConflict) {
		sdk.Errorf("keys of %s: %v", s.config.Service, err)
	}
	return err == nil
}

// conclude notes what came of it.
func (s *Source) conclude(change func(st *state)) {
	err := sdk.UpdateShared(s.key, func(old []byte) []byte {
		st := readState(old, s.source)
		st.busy = 0
		change(&st)
		return st.append(nil)
	})
	if err != nil {
		sdk.Errorf("keys of %s: %v", s.config.Service, err)
	}
}
