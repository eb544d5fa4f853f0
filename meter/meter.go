// Package meter counts the answers that consumers are given, so that no kill of the
// process makes it forget one, and brings the counts to the servers, once each.
//
//	Count ─▶ active segment ─rotate─▶ sealed segments ─ship─▶ servers ─ack─▶ deleted
//	            (mapped file)            (files)
//
// A [Journal] is a directory. What is counted goes into the counters of its active
// segment, a file that is mapped into memory: an increment is one atomic addition to
// the kernel's own page, without allocation, lock or system call. Every few seconds
// another segment takes its place; the one before is sealed, synced, sent, and deleted
// once the servers have said that they have it.
//
// # Promises
//
//   - A killed process loses nothing: the pages are the kernel's. A machine that loses
//     its power loses at most what was counted since its segments were synced, a few
//     seconds while the servers can be reached.
//   - Nothing is counted twice. A segment has a name of its own for ever, the epoch and
//     the sequence, never changes once it is sealed, and the servers add it once,
//     however often it is sent.
//   - Nothing is lost for want of room. A segment has a bounded number of series; beyond
//     it an answer is counted without its operation ([Overflow]), and beyond that in
//     memory until there is room. While servers cannot be reached the active segment goes
//     on, so that what gathers on disk grows with the series, not with the time.
//   - What cannot be read of a file is skipped, counted and said. A counter is valid by
//     construction; its key bears a checksum.
//
// # When an answer counts
//
// Once it is known whole, before the first byte of its head is handed to the kernel. So
// who was answered was counted, and a process that is killed in between has counted one
// more answer than its client has seen, never one less. An answer that is cut off midway
// counts, since its status was sent.
//
// # Sealing
//
// There is no lock between those who count and the one who seals. The highest bit of a
// counter says that it is sealed: who counts adds one by compare-and-swap and, where the
// bit has come, counts in the next segment, which is there before the first bit is. The
// value under the bit is what is sent, whoever was late.
//
// # Several processes
//
// Each opening of a directory has a random epoch, and segments of its own. It holds a
// lock as long as it lives, so that the next one knows whose segments may be taken over:
// those of epochs that nobody holds. While an edge is handed over from one process to
// another, both count.
package meter

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weirmesh/weir/proxy/exchange"
)

const (
	// Overflow is the operation of answers whose series had no room.
	Overflow = "*"
	// None stands for an Api or an operation where there is none.
	None = "-"
)

// series is what answers have in common that are counted together.
type series struct {
	tenant, app, subscription, api, operation string
	class                                     uint8
	hour                                      int64
}

// seriesOf is where an exchange's answer is counted; false: nowhere, since there is no
// consumer, or no answer.
func seriesOf(x *exchange.Exchange) (s series, counts bool) {
	c, r := x.Consumer, &x.Response
	if c == nil || r.Reset {
		return s, false
	}
	s = series{tenant: c.Tenant, app: c.App, subscription: c.Subscription, api: x.Api, operation: x.Operation,
		class: uint8(r.Status / 100), hour: x.Start.Unix() / int64(time.Hour/time.Second)}
	if n := len(c.Tenant); len(s.api) > n && s.api[n] == '/' && s.api[:n] == c.Tenant {
		s.api = s.api[n+1:]
	}
	for _, text := range [...]*string{&s.app, &s.subscription, &s.api, &s.operation} {
		if *text == "" {
			*text = None
		}
	}
	if r.Status < 200 || r.Status > 599 {
		s.class = 5 // no final answer: the listener makes it a 500
	}
	if r.Status == 101 && r.Tunnel != nil {
		s.class = 1
	}
	return s, true
}

// How long the texts of a series are at most, in a segment. Longer ones are cut, and
// told from others by a checksum.
const (
	maxName      = 64
	maxOperation = 192
)

// stored is the series as a segment has it.
func (s series) stored() series {
	for _, text := range [...]*string{&s.tenant, &s.app, &s.subscription, &s.api} {
		*text = clip(*text, maxName)
	}
	s.operation = clip(s.operation, maxOperation)
	return s
}

func clip(text string, most int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if strings.ContainsFunc(text, unicode.IsControl) { // which the servers refuse
		text = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return '\ufffd'
			}
			return r
		}, text)
	}
	if len(text) <= most {
		return text
	}
	end := most - len("~01234567")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s~%08x", text[:end], crc32.Checksum([]byte(text), castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
