package once

import "encoding/binary"

// slot is the value under one key.
type slot struct {
	digest string // of the question; "": it is free
	config uint32
	// asking: somebody is at it, and until is when they have failed. Else until is when
	// the answer ends, and spare how much longer it is used in need.
	asking, failed bool
	until, spare   int64
	// kept: while somebody is asking, text is the answer of before, good in need until
	// keptUntil.
	kept      bool
	keptUntil int64
	text      string
}

func (s *slot) answers(digest string, now int64) bool {
	return s.digest == digest && !s.asking && s.until > now
}

func (s *slot) asks(digest string, now int64) bool {
	return s.digest == digest && s.asking && s.until > now
}

func (s *slot) answer() Answer { return Answer{Failed: s.failed, Text: s.text} }

const (
	digestSize = 32
	slotHead   = digestSize + 4 + 1 + 3*8

	flagAsking = 1
	flagFailed = 2
	flagKept   = 4
)

func (s *slot) append(b []byte) []byte {
	b = append(b, s.digest...)
	b = binary.LittleEndian.AppendUint32(b, s.config)
	flags := byte(0)
	for i, set := range [...]bool{s.asking, s.failed, s.kept} {
		if set {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	for _, n := range [...]int64{s.until, s.spare, s.keptUntil} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return append(b, s.text...)
}

// readSlot reads what append has written. Anything else is a free slot, and so is what
// was answered under another configuration.
func readSlot(b []byte, config uint32) (s slot) {
	if len(b) < slotHead || binary.LittleEndian.Uint32(b[digestSize:]) != config {
		return s
	}
	flags, times := b[digestSize+4], b[digestSize+5:]
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(times[8*i:])) }
	return slot{
		digest: string(b[:digestSize]), config: config,
		asking: flags&flagAsking != 0, failed: flags&flagFailed != 0, kept: flags&flagKept != 0,
		until: at(0), spare: at(1), keptUntil: at(2), text: string(b[slotHead:]),
	}
}
