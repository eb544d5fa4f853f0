package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// A record, all numbers little endian:
//
//	length   4  of what follows the checksum
//	checksum 4  CRC-32C of the segment's nonce, the length and what follows
//	kind     1
//	safe     8  entries up to this index were synced when it was written
//	agreed   8  entries up to this index were known to be agreed on
//	…           of an entry: index 8, term 8, time 8, type 1, length of the
//	            extensions 4, the extensions, the data
//
// and zeros up to a multiple of 8. The nonce, drawn for each segment, keeps
// bytes that a caller has put into an entry from ever looking like a record.
const (
	recordHead = 4 + 4
	recordBase = 1 + 8 + 8
	entryHead  = recordBase + 8 + 8 + 8 + 1 + 4
	alignment  = 8
	maxRecord  = 64 << 20
)

type kind byte

const (
	kindEntry  kind = 1
	kindNote   kind = 2 // says only what is agreed on
	kindClosed kind = 3 // everything before is whole
)

// record is a record that was read; what it holds is memory of who read it.
type record struct {
	kind         kind
	safe, agreed uint64
	index        uint64 // of an entry
	body         []byte // of an entry, from the term on
	size         int64  // on disk, with padding
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(nonce, length, content []byte) uint32 {
	sum := crc32.Checksum(nonce, castagnoli)
	sum = crc32.Update(sum, castagnoli, length)
	return crc32.Update(sum, castagnoli, content)
}

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// appendRecord appends a record; content writes what is special to its kind.
func appendRecord(b, nonce []byte, k kind, safe, agreed uint64, content func([]byte) []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, recordHead)...)
	b = append(b, byte(k))
	b = binary.LittleEndian.AppendUint64(b, safe)
	b = binary.LittleEndian.AppendUint64(b, agreed)
	if content != nil {
		b = content(b)
	}
	length := len(b) - start - recordHead
	binary.LittleEndian.PutUint32(b[start:], uint32(length))
	binary.LittleEndian.PutUint32(b[start+4:], checksum(nonce, b[start:start+4], b[start+recordHead:]))
	for len(b)%alignment != start%alignment {
		b = append(b, 0)
	}
	return b
}

func appendEntry(b, nonce []byte, safe, agreed uint64, l *raft.Log) []byte {
	return appendRecord(b, nonce, kindEntry, safe, agreed, func(b []byte) []byte {
		b = binary.LittleEndian.AppendUint64(b, l.Index)
		b = binary.LittleEndian.AppendUint64(b, l.Term)
		var appended int64
		if !l.AppendedAt.IsZero() {
			appended = l.AppendedAt.UnixNano()
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(appended))
		b = append(b, byte(l.Type))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Extensions)))
		b = append(b, l.Extensions...)
		return append(b, l.Data...)
	})
}

// entrySize is how much appendEntry appends.
func entrySize(l *raft.Log) int64 {
	return align(int64(recordHead + entryHead + len(l.Extensions) + len(l.Data)))
}

var errNoRecord = errors.New("it is no record")

// parseRecord reads the record at the beginning of b.
func parseRecord(b, nonce []byte) (record, error) {
	if len(b) < recordHead+recordBase {
		return record{}, errNoRecord
	}
	length := int64(binary.LittleEndian.Uint32(b))
	if length < recordBase || length > maxRecord || length > int64(len(b))-recordHead {
		return record{}, errNoRecord
	}
	content := b[recordHead : recordHead+length]
	if binary.LittleEndian.Uint32(b[4:]) != checksum(nonce, b[:4], content) {
		return record{}, errNoRecord
	}
	r := record{
		kind: kind(content[0]), safe: binary.LittleEndian.Uint64(content[1:]), agreed: binary.LittleEndian.Uint64(content[9:]),
		size: align(recordHead + length),
	}
	switch r.kind {
	case kindNote, kindClosed:
		return r, nil
	case kindEntry:
		if length < entryHead || uint64(binary.LittleEndian.Uint32(content[entryHead-4:])) > uint64(length-entryHead) {
			return record{}, errNoRecord
		}
		r.index, r.body = binary.LittleEndian.Uint64(content[recordBase:]), content[recordBase+8:]
		if r.index == 0 || r.index == math.MaxUint64 {
			return record{}, errNoRecord
		}
		return r, nil
	}
	return record{}, errNoRecord
}

// entry makes an entry of a record, which goes on to use its memory.
func (r record) entry(out *raft.Log) {
	const head = entryHead - recordBase - 8
	extended := head + int(binary.LittleEndian.Uint32(r.body[head-4:]))
	*out = raft.Log{
		Index:      r.index,
		Term:       binary.LittleEndian.Uint64(r.body),
		Type:       raft.LogType(r.body[16]),
		Extensions: r.body[head:extended:extended],
		Data:       r.body[extended:],
	}
	if appended := int64(binary.LittleEndian.Uint64(r.body[8:])); appended != 0 {
		out.AppendedAt = time.Unix(0, appended)
	}
}
