package websocket

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// testCase is one conversation, and what is to come of it. A case with raw steps
// is run twice: the client writes them, and the server judges; or, toClient, the
// client sends them as messages to a server that writes them.
type testCase struct {
	name      string
	steps     []step
	protocols []string
	deflate   string
	do        string // what the server does: echo, if empty
	chop      int    // pieces of raw steps
	toClient  bool

	heard []string // by the client; nil: not said
	codes []int    // one of which the side hears that is not to judge
	pongs int

	large   bool     // for the whole run only
	plain   bool     // not by TLS: it has no half-closes that all can make
	lenient []string // peers that judge otherwise than RFC 6455, and the same with an edge
}

// job is the case for a client, without whom to meet.
func (c testCase) job(n uint64) job {
	do := "echo"
	if c.do != "" {
		do = c.do
	}
	steps := slices.Clone(c.steps)
	for i, s := range steps {
		if s.Do != "raw" {
			continue
		}
		steps[i].Chop = c.chop
		steps[i].Data = encode(s.frames, !c.toClient)
		if c.toClient {
			do, steps[i].Do = "raw", "binary"
		}
	}
	id := fmt.Sprint(n)
	return job{ID: id, URL: fmt.Sprintf("%s?id=%s&chop=%d", do, id, c.chop), Protocols: c.protocols, Deflate: c.deflate, Steps: steps}
}

func cases() (all []testCase) {
	for _, group := range [][]testCase{framing(), pings(), reserved(), opcodes(), fragments(), utf8s(), closings(), larges(), deflates(), lives()} {
		for _, c := range group {
			all = append(all, c)
			if slices.ContainsFunc(c.steps, func(s step) bool { return s.Do == "raw" }) {
				c.toClient = true
				c.name += ", to the client"
				all = append(all, c)
			}
		}
	}
	return all
}

var (
	normal   = []int{1000}
	protocol = []int{1002}
	goodbye  = step{Do: "close", Code: 1000}
)

func send(kind string, size int) step { return step{Do: kind, Size: size} }
func hear(n int) step                 { return step{Do: "hear", Count: n} }
func raw(frames ...frame) step        { return step{Do: "raw", frames: frames} }
func one(opcode byte, s string) frame {
	return frame{opcode: opcode, payload: []byte(s)}
}
func part(opcode byte, s string) frame {
	return frame{more: true, opcode: opcode, payload: []byte(s)}
}

// valid is a case whose frames make these messages.
func valid(name string, heard []string, frames ...frame) testCase {
	return testCase{name: name, steps: []step{raw(frames...), hear(len(heard)), goodbye}, heard: heard}
}

// broken is a case of a good message, and then frames that end it with a code.
func broken(name string, codes []int, frames ...frame) testCase {
	hello := raw(one(opText, "hello"))
	return testCase{name: name, steps: []step{hello, hear(1), raw(frames...)}, heard: []string{told(opText, []byte("hello"))}, codes: codes}
}

func said(texts ...string) (heard []string) {
	for _, s := range texts {
		heard = append(heard, told(opText, []byte(s)))
	}
	return heard
}

// 1: sizes at which the length is written another way.
func framing() (all []testCase) {
	for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		for j, kind := range []string{"text", "binary"} {
			want := text(size)
			if kind == "binary" {
				want = blob(size)
			}
			all = append(all, testCase{name: fmt.Sprintf("1.%d.%d %s of %d bytes", j+1, i+1, kind, size),
				steps: []step{send(kind, size), hear(1), goodbye}, heard: []string{want}, codes: normal})
		}
	}
	for j, opcode := range []byte{opText, opBinary} {
		c := valid(fmt.Sprintf("1.%d.8 65536 bytes in pieces of 997", j+1), []string{told(opcode, pattern(65536))}, frame{opcode: opcode, payload: pattern(65536)})
		c.chop = 997
		all = append(all, c)
	}
	return all
}

func pings() (all []testCase) {
	for i, size := range []int{0, 5, 8, 125} {
		all = append(all, testCase{name: fmt.Sprintf("2.%d a ping of %d bytes", i+1, size),
			steps: []step{send("ping", size), send("text", 5), hear(1), goodbye}, heard: []string{text(5)}, codes: normal, pongs: 1})
	}
	all = append(all, broken("2.5 a ping of 126 bytes", protocol, frame{opcode: opPing, payload: pattern(126)}))
	chopped := valid("2.6 a ping of 125 bytes, byte by byte", said("hi"), frame{opcode: opPing, payload: pattern(125)}, one(opText, "hi"))
	chopped.chop = 1
	all = append(all, chopped,
		valid("2.7 an empty pong that nobody asked for", said("hi"), one(opPong, ""), one(opText, "hi")),
		valid("2.8 a pong that nobody asked for", said("hi"), one(opPong, "unasked"), one(opText, "hi")),
		valid("2.9 a pong that nobody asked for, and a ping", said("hi"), one(opPong, "unasked"), one(opPing, "asked"), one(opText, "hi")))
	var ten []frame
	for i := range 10 {
		ten = append(ten, one(opPing, fmt.Sprint("ping ", i)))
	}
	many := valid("2.10 ten pings", said("hi"), append(slices.Clone(ten), one(opText, "hi"))...)
	slow := valid("2.11 ten pings, byte by byte", said("hi"), append(slices.Clone(ten), one(opText, "hi"))...)
	slow.chop = 1
	return append(all, many, slow)
}

func reserved() (all []testCase) {
	for rsv := byte(1); rsv <= 7; rsv++ {
		for _, opcode := range []byte{opText, opBinary, opPing, opClose} {
			f := frame{rsv: rsv, opcode: opcode, payload: []byte("oh")}
			if opcode == opClose {
				f.payload = closing(1000, "")
			}
			all = append(all, broken(fmt.Sprintf("3.%d reserved bits %03b, opcode %d", rsv, rsv, opcode), protocol, f))
		}
	}
	return all
}

func opcodes() (all []testCase) {
	for i, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		group := 1 + i/5
		all = append(all,
			broken(fmt.Sprintf("4.%d.%d opcode %d", group, i%5+1, opcode), protocol, one(opcode, "")),
			broken(fmt.Sprintf("4.%d.%d opcode %d, with a payload", group, i%5+1, opcode), protocol, one(opcode, "reserved for further use")))
	}
	return all
}

func fragments() []testCase {
	a, b := part(opText, "fragment1"), one(opContinuation, "fragment2")
	middle, ping, pong := part(opContinuation, "-"), one(opPing, "in between"), one(opPong, "in between")
	all := []testCase{
		broken("5.1 a ping in fragments", protocol, part(opPing, "fragment1"), b),
		broken("5.2 a pong in fragments", protocol, part(opPong, "fragment1"), b),
		valid("5.3 two fragments", said("fragment1fragment2"), a, b),
		valid("5.6 a ping between fragments", said("fragment1fragment2"), a, ping, b),
		valid("5.7 a pong between fragments", said("fragment1fragment2"), a, pong, b),
		broken("5.9 a continuation of nothing", protocol, one(opContinuation, "lost")),
		broken("5.12 an unfinished continuation of nothing", protocol, part(opContinuation, "lost")),
		broken("5.15 a continuation after the end", protocol, a, b, part(opContinuation, "3"), one(opText, "4")),
		broken("5.18 text within text", protocol, a, one(opText, "fragment2")),
		valid("5.19 pings between five fragments", said("fragment1--fragment2"), a, middle, ping, middle, ping, b),
		valid("5.20 empty fragments", said(""), part(opText, ""), part(opContinuation, ""), one(opContinuation, "")),
	}
	all[7].heard = nil // what comes before the breach may be said again, or not
	bytewise := valid("5.5 two fragments, byte by byte", said("fragment1fragment2"), a, b)
	bytewise.chop = 1
	between := valid("5.8 a ping between fragments, byte by byte", said("fragment1fragment2"), a, ping, b)
	between.chop = 1
	return append(all, bytewise, between)
}

// 6: text that is UTF-8, and text that is not. coder/websocket leaves that to
// its user, which says the same again: so it is no judge.
func utf8s() (all []testCase) {
	for name, s := range map[string]string{
		"6.2 Hello-µ@ßöäüàá": "Hello-µ@ßöäüàá-UTF-8!!", "6.5 κόσμε": "κόσμε", "6.6 ends of ranges": "\u0080\u07ff\u0800\uffff\U00010000",
		"6.7 one byte": "\x00\x7f", "6.9 the last code point": "\U0010ffff", "6.11 around the surrogates": "\ud7ff\ue000\ufffd",
		"6.22 noncharacters": "\ufffe\uffff\U0001fffe\U0010ffff",
	} {
		all = append(all, valid(name, said(s), one(opText, s)))
		var bytewise []frame
		for i := range len(s) {
			bytewise = append(bytewise, part(opContinuation, s[i:i+1]))
		}
		bytewise[0].opcode = opText
		bytewise[len(bytewise)-1].more = false
		all = append(all, valid(name+", a byte a fragment", said(s), bytewise...))
	}
	for name, s := range map[string]string{
		"6.3 a surrogate":         "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
		"6.4 above the last":      "\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80edited",
		"6.8 five bytes":          "\xf8\x88\x80\x80\x80",
		"6.10 six bytes":          "\xfc\x84\x80\x80\x80\x80",
		"6.12 a lone 80":          "\x80",
		"6.13 only continuations": "\x80\xbf\x80\xbf\x80\xbf",
		"6.14 lonely starts":      "\xc0 \xc1 \xc2 \xc3",
		"6.15 an unfinished end":  "Hello \xe2\x82",
		"6.16 FE and FF":          "\xfe\xfe\xff\xff",
		"6.17 overlong slash":     "\xc0\xaf",
		"6.18 overlong in three":  "\xe0\x80\xaf",
		"6.19 overlong largest":   "\xc1\xbf",
		"6.20 overlong NUL":       "\xc0\x80",
		"6.21 paired surrogates":  "\xed\xa0\x80\xed\xb0\x80",
	} {
		c := broken(name, []int{1007}, one(opText, s))
		c.steps = append(c.steps, hear(2), step{Do: "close", Code: 1000})
		c.lenient = []string{"coder"}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b testCase) int { return strings.Compare(a.name, b.name) })
	return all
}

func closings() (all []testCase) {
	end := func(name string, codes []int, payload []byte) testCase {
		return broken(name, codes, frame{opcode: opClose, payload: payload})
	}
	all = append(all,
		testCase{name: "7.1.1 a message, and the end", steps: []step{send("text", 5), hear(1), goodbye}, heard: []string{text(5)}, codes: normal},
		broken("7.1.2 two close frames", normal, frame{opcode: opClose, payload: closing(1000, "")}, frame{opcode: opClose, payload: closing(1000, "")}),
		broken("7.1.3 a ping after the end", normal, frame{opcode: opClose, payload: closing(1000, "")}, one(opPing, "late")),
		broken("7.1.4 text after the end", normal, frame{opcode: opClose, payload: closing(1000, "")}, one(opText, "late")),
		broken("7.1.5 a fragment after the end", normal, part(opText, "first"), frame{opcode: opClose, payload: closing(1000, "")}, one(opContinuation, "late")),
		testCase{name: "7.1.6 256 KiB, and the end", steps: []step{send("text", 256<<10), hear(1), goodbye}, heard: []string{text(256 << 10)}, codes: normal},
		end("7.3.1 no code", []int{1005, 1000}, nil),
		end("7.3.2 half a code", protocol, []byte{3}),
		end("7.3.3 a code", normal, closing(1000, "")),
		end("7.3.4 a code and a reason", normal, closing(1000, "Hello World!")),
		end("7.3.5 the longest reason", normal, closing(1000, strings.Repeat("*", 123))),
		end("7.3.6 a reason too long", protocol, closing(1000, strings.Repeat("*", 124))),
	)
	bad := end("7.5.1 a reason that is no UTF-8", []int{1002, 1007}, closing(1000, "\xce\xba\xed\xa0\x80"))
	bad.lenient = []string{"coder"}
	all = append(all, bad)
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		all = append(all, end(fmt.Sprintf("7.7.%d code %d", i+1, code), []int{code}, closing(code, "")))
		if code == 1010 || code == 1002 || code == 1007 {
			continue // what libraries keep for themselves
		}
		all = append(all, testCase{name: fmt.Sprintf("7.7.%d code %d and a reason, by the library", i+1, code),
			steps: []step{send("text", 5), hear(1), {Do: "close", Code: code, Data: []byte("because")}}, heard: []string{text(5)}, codes: []int{code}})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535} {
		c := end(fmt.Sprintf("7.9.%d code %d", i+1, code), protocol, closing(code, ""))
		all = append(all, c)
	}
	return append(all,
		testCase{name: "7.x the client says no more", steps: []step{send("text", 5), hear(1), {Do: "fin"}}, heard: []string{text(5)}, codes: []int{1006}, plain: true},
		testCase{name: "7.x the client dies", steps: []step{send("text", 5), hear(1), {Do: "die"}}, heard: []string{text(5)}, codes: []int{1006}},
		testCase{name: "7.x the server dies", do: "die", steps: []step{send("text", 5)}, codes: []int{1006}})
}

// 9 and 10: large messages, in one frame and in many, and many small ones.
func larges() (all []testCase) {
	for i, size := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20} {
		for j, kind := range []string{"text", "binary"} {
			want := text(size)
			if kind == "binary" {
				want = blob(size)
			}
			all = append(all, testCase{name: fmt.Sprintf("9.%d.%d %s of %d KiB", j+1, i+1, kind, size>>10), large: i > 2,
				steps: []step{send(kind, size), hear(1), goodbye}, heard: []string{want}, codes: normal})
		}
	}
	for i, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		c := valid(fmt.Sprintf("9.4.%d 4 MiB in fragments of %d bytes", i+1, size), []string{blob(4 << 20)}, pieces(opBinary, pattern(4<<20), size)...)
		c.large = true
		all = append(all, c)
	}
	for i, size := range []int{64, 128, 256, 512, 1024, 2048} {
		for j, opcode := range []byte{opText, opBinary} {
			c := valid(fmt.Sprintf("9.%d.%d 1 MiB in pieces of %d bytes", j+5, i+1, size), []string{told(opcode, pattern(1<<20))}, frame{opcode: opcode, payload: pattern(1 << 20)})
			c.chop, c.large = size, true
			all = append(all, c)
		}
	}
	for i, size := range []int{0, 16, 64, 256, 1024, 4096} {
		all = append(all, many(fmt.Sprintf("9.7.%d 1000 messages of %d bytes", i+1, size), size, 1000, i != 1))
	}
	return append(all, valid("10.1.1 65536 bytes in fragments of 1300", []string{text(65536)}, pieces(opText, pattern(65536), 1300)...))
}

func many(name string, size, count int, large bool) testCase {
	return testCase{name: name, steps: []step{{Do: "text", Size: size, Count: count}, hear(count), goodbye},
		heard: slices.Repeat([]string{text(size)}, count), codes: normal, large: large}
}

func pieces(opcode byte, data []byte, size int) (all []frame) {
	for chunk := range slices.Chunk(data, size) {
		all = append(all, frame{more: true, opcode: opcode, payload: bytes.Clone(chunk)})
		opcode = opContinuation
	}
	all[len(all)-1].more = false
	return all
}

// 12 and 13: permessage-deflate (RFC 7692), with and without what one message
// leaves for the next.
func deflates() (all []testCase) {
	for group, kind := range []string{"takeover", "no-takeover", "window"} {
		for i, size := range []int{16, 64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10} {
			few := many(fmt.Sprintf("13.%d.%d %s: 10 messages of %d bytes", group+1, i+1, kind, size), size, 10, i%3 != 0)
			few.deflate = kind
			count := min(1000, 16<<20/size)
			most := many(fmt.Sprintf("13.%d.%d %s: %d messages of %d bytes", group+1, i+1, kind, count, size), size, count, true)
			most.deflate = kind
			all = append(all, few, most)
		}
	}
	return all
}

// What is no case of Autobahn's: sub-protocols, and silence.
func lives() []testCase {
	silence := func(name string, large bool, pings, ms int) testCase {
		c := testCase{name: name, large: large, heard: []string{text(5)}, codes: normal, pongs: pings}
		for range pings {
			c.steps = append(c.steps, step{Do: "wait", MS: ms}, step{Do: "ping", Size: 4})
		}
		c.steps = append(c.steps, step{Do: "wait", MS: ms}, send("text", 5), hear(1), goodbye)
		return c
	}
	talk := []step{send("text", 5), hear(1), goodbye}
	return []testCase{
		{name: "sub-protocols of which one is spoken", protocols: []string{"chat.v1", "chat.v2"}, steps: talk, heard: []string{text(5)}, codes: normal},
		{name: "the one sub-protocol that is spoken", protocols: []string{"chat.v2"}, steps: talk, heard: []string{text(5)}, codes: normal},
		{name: "a sub-protocol and compression", protocols: []string{"chat.v2"}, deflate: "takeover", steps: talk, heard: []string{text(5)}, codes: normal},
		silence("silence with pings", false, 3, 50),
	}
}
