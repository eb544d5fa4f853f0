package wasm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCommandsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ command, err string }{
		{"*2|$3|GET|$1|k|", ""},
		{"*1|$4|PING|", ""},
		{"*2|$3|GET|$0||", ""},
		{"", "not one command"},
		{"PING|", "not one command"},
		{"*0|", "not one command"},
		{"*-1|", "not one command"},
		{"*+1|$4|PING|", "not one command"},
		{"*1|$5|PING|", "not one command"},
		{"*1|$3|PING|", "not one command"},
		{"*1|:1|", "not one command"},
		{"*2|$4|PING|", "not one command"},
		{"*65537|", "not one command"},
		{"*99999999999999999999|", "not one command"},
		{"*1|$4|PING|*1|$4|PING|", "not one command"},
		{"*1|$9|subscribe|", "SUBSCRIBE would change or keep"},
		{"*2|$6|select|$1|1|", "SELECT would"},
		{"*1|$5|MULTI|", "MULTI would"},
		{"*3|$5|BLPOP|$1|k|$1|0|", "BLPOP would"},
		{"*6|$5|XREAD|$5|block|$1|0|$7|STREAMS|$1|k|$1|0|", "XREAD would"},
		{"*4|$5|XREAD|$7|STREAMS|$5|BLOCK|$1|0|", ""},
		{"*3|$6|CLIENT|$5|REPLY|$3|OFF|", "CLIENT would"},
		{"*3|$6|SCRIPT|$5|debug|$3|YES|", "SCRIPT would"},
	} {
		arguments, err := parseCommand([]byte(strings.ReplaceAll(c.command, "|", "\r\n")))
		if err == nil {
			err = keepsTo(arguments)
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %v, want %q", c.command, err, c.err)
		}
	}
}

// TestWhereAnAnswerEnds, however it is cut on its way; what follows is left.
func TestWhereAnAnswerEnds(t *testing.T) {
	for _, c := range []struct {
		answer string
		err    error
	}{
		{"+OK|", nil}, {"-ERR no|", nil}, {":-3|", nil}, {"$-1|", nil}, {"$0||", nil}, {"$4|a|b|", nil}, {"*-1|", nil}, {"*0|", nil},
		{"*3|:1|*2|$1|a|$-1|+OK|", nil},
		{"_|", nil}, {"#t|", nil}, {",1.5|", nil}, {"(123|", nil}, {"!5|ERR x|", nil}, {"=5|txt:a|", nil},
		{"%2|+a|:1|+b|*1|:2|", nil}, {"~2|:1|:2|", nil}, {"|1|+ttl|:3|+value|", nil},
		{strings.Repeat("*1|", maxNesting-1) + ":1|", nil},
		{strings.Repeat("*1|", maxNesting) + ":1|", errNested},
		{"$99|" + strings.Repeat("a", 99) + "|", nil},
		{"$121|", errAnswerTooLarge}, {"*129|", errAnswerTooLarge}, {"+" + strings.Repeat("a", 128) + "|", errAnswerTooLarge},
		{">1|+message|", errNoRESP}, {"HTTP/1.1 400 Bad Request|", errNoRESP}, {"|", errNoRESP}, {"$-2|", errNoRESP}, {"*x|", errNoRESP},
		{"$1|ab|", errNoRESP}, {"+OK\n", errNoRESP},
		{"", io.EOF}, {"+OK", io.ErrUnexpectedEOF}, {"*2|:1|", io.ErrUnexpectedEOF}, {"$4|ab", io.ErrUnexpectedEOF},
	} {
		text := strings.ReplaceAll(c.answer, "|", "\r\n")
		if strings.HasPrefix(c.answer, "|1") {
			text = "|" + text[2:]
		}
		after := "+NEXT\r\n"
		if errors.Is(c.err, io.EOF) || errors.Is(c.err, io.ErrUnexpectedEOF) {
			after = ""
		}
		in := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(text+after)), 16)
		got, err := readAnswer(in, 128)
		if !errors.Is(err, c.err) || err == nil && string(got) != text {
			t.Errorf("%q: %q, %v; want %v", c.answer, got, err, c.err)
			continue
		}
		if rest, _ := io.ReadAll(in); err == nil && string(rest) != after {
			t.Errorf("%q: %q follows", c.answer, rest)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{"+OK\r\n", "$3\r\nabc\r\n", "*2\r\n:1\r\n*1\r\n$-1\r\n", "%1\r\n+a\r\n#t\r\n", "|1\r\n+a\r\n:1\r\n_\r\n", "*9\r\n*9\r\n", "$-2\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 12
		got, err := readAnswer(bufio.NewReaderSize(bytes.NewReader(b), 64), limit)
		if err != nil {
			return
		}
		if len(got) == 0 || len(got) > limit || !bytes.HasPrefix(b, got) {
			t.Fatalf("%q of %q", got, b)
		}
		// What was taken for an answer is one, and not more than one.
		if again, err := readAnswer(bufio.NewReader(bytes.NewReader(got)), limit); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q, then %q, %v", got, again, err)
		}
		if _, err := readAnswer(bufio.NewReader(bytes.NewReader(got[:len(got)-1])), limit); err == nil {
			t.Fatalf("%q has two ends", got)
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add([]byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"))
	f.Add([]byte("*1\r\n$4\r\nPING\r\n*1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		arguments, err := parseCommand(b)
		if err != nil {
			return
		}
		texts := make([]string, len(arguments))
		for i, a := range arguments {
			texts[i] = string(a)
		}
		again, err := parseCommand(appendCommand(nil, texts...))
		if err != nil || len(again) != len(arguments) {
			t.Fatalf("%q: %q, %v", b, again, err)
		}
		for i := range again {
			if !bytes.Equal(again[i], arguments[i]) {
				t.Fatalf("%q: %q", b, again)
			}
		}
		keepsTo(arguments)
	})
}
