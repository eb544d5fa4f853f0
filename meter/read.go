package meter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"unicode/utf8"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// contents is what a segment's file holds.
type contents struct {
	name   // the zero one: the head was not written, or not yet
	counts []*weirv1.UsageCount
	torn   int // slots that hold something and cannot be read
}

// readSegment reads a file that a process has left, whatever is in it. A file that was
// cut holds the slots that are whole. A head of zeros is no damage: a machine that has
// lost its power may have kept other pages than the first.
func readSegment(data []byte) (*contents, error) {
	c := new(contents)
	slots := len(data)/slotSize - 1
	if head := data[:min(len(data), slotSize)]; len(bytes.Trim(head, "\x00")) > 0 {
		if len(head) < slotSize || string(head[:8]) != magic || binary.LittleEndian.Uint32(head[headSum:]) != crc32.Checksum(head[:headSum], castagnoli) {
			return nil, errors.New("the head is damaged, or of another version")
		}
		copy(c.epoch[:], head[8:])
		c.sequence = binary.LittleEndian.Uint64(head[24:])
		slots = min(slots, int(binary.LittleEndian.Uint32(head[32:])))
	}
	for i := 1; i <= slots; i++ {
		c.add(data[i*slotSize:][:slotSize])
	}
	return c, nil
}

// add reads a slot. A counter that is zero says nothing, whatever its key.
func (c *contents) add(slot []byte) {
	n := binary.LittleEndian.Uint64(slot) &^ sealedBit
	if n == 0 {
		return
	}
	s, ok := getSeries(slot)
	if !ok {
		c.torn++
		return
	}
	c.counts = append(c.counts, &weirv1.UsageCount{
		Tenant: s.tenant, App: s.app, Subscription: s.subscription, Api: s.api, Operation: s.operation,
		StatusClass: uint32(s.class), Hour: s.hour, Count: n,
	})
}

// getSeries reads what putSeries wrote.
func getSeries(slot []byte) (s series, ok bool) {
	texts, at := [5]string{}, slotText
	for i := range texts {
		n := int(binary.LittleEndian.Uint16(slot[slotFrom+2*i:]))
		if at+n > slotSize {
			return s, false
		}
		texts[i] = string(slot[at : at+n])
		at += n
	}
	if binary.LittleEndian.Uint32(slot[slotSum:]) != crc32.Checksum(slot[slotFrom:at], castagnoli) {
		return s, false
	}
	s = series{texts[0], texts[1], texts[2], texts[3], texts[4], slot[slotFrom+10], int64(binary.LittleEndian.Uint64(slot[24:]))}
	if at-slotText > maxText || s.class < 1 || s.class > 5 {
		return s, false
	}
	for _, text := range texts {
		if text == "" || !utf8.ValidString(text) {
			return s, false
		}
	}
	return s, true
}
