package http2

import (
	"encoding/binary"
)

// kind is a frame's type.
type kind uint8

const (
	frameData kind = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags. Those that share a bit belong to different frames.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings.
const (
	settingTableSize     = 1
	settingPush          = 2
	settingStreams       = 3
	settingWindow        = 4
	settingFrameSize     = 5
	settingHeaderList    = 6
	settingConnect       = 8 // RFC 8441, section 3
	headerSize           = 9
	maxWindow            = 1<<31 - 1
	defaultWindow        = 1<<16 - 1
	lastStream           = 1<<31 - 1
	largestFrameSize     = 1<<24 - 1
	settingSize          = 6
	defaultTableSize     = 4 << 10
	priorityFields       = 5
	maxContinuations     = 64
	smallestWindowUpdate = 32 << 10
)

// frame is one frame, in the connection's buffer.
type frame struct {
	kind    kind
	flags   uint8
	stream  uint32
	payload []byte
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// parseHeader reads a frame's first nine bytes and returns how many follow.
func (f *frame) parseHeader(b []byte) (length int) {
	_ = b[headerSize-1]
	*f = frame{kind: kind(b[3]), flags: b[4], stream: binary.BigEndian.Uint32(b[5:]) & lastStream}
	return int(b[0])<<16 | int(b[1])<<8 | int(b[2])
}

// unpad takes a padded frame's padding off.
func (f *frame) unpad() *connError {
	if !f.has(flagPadded) {
		return nil
	}
	if len(f.payload) == 0 {
		return &connError{codeFrameSize, "a padded frame has no room for the padding's length"}
	}
	n := int(f.payload[0])
	if n >= len(f.payload) {
		return &connError{codeProtocol, "the padding is longer than its frame"}
	}
	f.payload = f.payload[1 : len(f.payload)-n]
	return nil
}

func appendHeader(dst []byte, length int, k kind, flags uint8, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(k), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func appendReset(dst []byte, stream uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, 4, frameReset, 0, stream), uint32(c))
}

func appendWindow(dst []byte, stream uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, 4, frameWindow, 0, stream), uint32(n))
}

func appendPing(dst []byte, flags uint8, data []byte) []byte {
	return append(appendHeader(dst, 8, framePing, flags, 0), data...)
}

func appendGoAway(dst []byte, last uint32, c code) []byte {
	dst = appendHeader(dst, 8, frameGoAway, 0, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, last), uint32(c))
}

// setting is one parameter of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(dst []byte, settings ...setting) []byte {
	dst = appendHeader(dst, settingSize*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, s.id), s.value)
	}
	return dst
}

func readSetting(b []byte) setting {
	return setting{binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])}
}

// check refuses values that have no meaning.
func (s setting) check() *connError {
	switch {
	case s.id == settingPush && s.value > 1:
		return &connError{codeProtocol, "ENABLE_PUSH is neither 0 nor 1"}
	case s.id == settingWindow && s.value > maxWindow:
		return &connError{codeFlowControl, "the initial window is too large"}
	case s.id == settingFrameSize && (s.value < maxFrame || s.value > largestFrameSize):
		return &connError{codeProtocol, "the largest frame is out of range"}
	}
	return nil
}
