package http1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/wire"
)

// chunked reads a body that comes in pieces of one byte, and again all at once,
// and says what it became.
func chunked(raw string) string {
	byBytes, whole := readBack(raw, 1), readBack(raw, 1<<20)
	if byBytes != whole {
		return fmt.Sprintf("%s byte by byte, %s at once", byBytes, whole)
	}
	return whole
}

func readBack(raw string, piece int) string {
	body, trailers, left, err := readChunked([]byte(raw), piece)
	if err != nil {
		if strings.Contains(err.Error(), "EOF") {
			return "cut short"
		}
		return refusal(err)
	}
	s := fmt.Sprintf("%q", body)
	for i := range trailers.Len() {
		s += fmt.Sprintf(" %s=%s", trailers.At(i).Name, trailers.At(i).Value)
	}
	return s + rest(left)
}

func TestChunkedCoding(t *testing.T) {
	checkVerdicts(t, chunked, []verdict{
		{"chunks and the last one", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", `"hello!"`},
		{"nothing", "0\r\n\r\n", `""`},
		{"hexadecimal in any case", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", `"01234567890123456789a"`},
		{"leading zeros", "0005\r\nhello\r\n000\r\n\r\n", `"hello"`},
		{"the data may hold anything", "6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", `"\r\n0\r\n\r"`},
		{"what follows is the next message's", "0\r\n\r\nGET / HTTP/1.1\r\n", `"" then "GET / HTTP/1.1\r\n"`},

		{"an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n", `"hello"`},
		{"an extension with a quoted value", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", `"hello"`},
		{"a quoted value with an escaped quote", "5;a=\"b\\\"c\"\r\nhello\r\n0\r\n\r\n", `"hello"`},
		{"a quote that stays open", "5;a=\"b\r\nhello\r\n0\r\n\r\n", "400"},
		{"a quote that an escape keeps open", "5;a=\"b\\\"\r\nhello\r\n0\r\n\r\n", "400"},
		{"white space before an extension", "5 ;a\r\nhello\r\n0\r\n\r\n", "400"},
		{"a CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", "400"},
		{"an LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n", "400"},
		{"NUL in an extension", "5;a\x00\r\nhello\r\n0\r\n\r\n", "400"},

		{"no size", "\r\nhello\r\n0\r\n\r\n", "400"},
		{"an extension and no size", ";a\r\nhello\r\n0\r\n\r\n", "400"},
		{"a size that is no number", "g\r\nhello\r\n0\r\n\r\n", "400"},
		{"a prefix", "0x5\r\nhello\r\n0\r\n\r\n", "400"},
		{"a sign", "+5\r\nhello\r\n0\r\n\r\n", "400"},
		{"a negative size", "-5\r\nhello\r\n0\r\n\r\n", "400"},
		{"white space before a size", " 5\r\nhello\r\n0\r\n\r\n", "400"},
		{"white space behind a size", "5 \r\nhello\r\n0\r\n\r\n", "400"},
		{"something behind a size", "5 a\r\nhello\r\n0\r\n\r\n", "400"},
		{"an underscore", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n", "400"},
		{"a size that fills 63 bits", "7fffffffffffffff\r\nhello\r\n0\r\n\r\n", "400"},
		{"a size that wraps around to 5", "10000000000000005\r\nhello\r\n0\r\n\r\n", "400"},
		{"zeros without end", strings.Repeat("0", 20) + "5\r\nhello\r\n0\r\n\r\n", "400"},

		{"a bare LF behind a size", "5\nhello\r\n0\r\n\r\n", "400"},
		{"a bare LF behind the data", "5\r\nhello\n0\r\n\r\n", "400"},
		{"a bare LF behind the last chunk", "5\r\nhello\r\n0\n\r\n", "400"},
		{"a bare LF at the end", "5\r\nhello\r\n0\r\n\n", "400"},
		{"two CRs behind a size", "5\r\r\nhello\r\n0\r\n\r\n", "400"},
		{"two CRs behind the data", "5\r\nhello\r\r\n0\r\n\r\n", "400"},
		{"data longer than its size", "5\r\nhello!\r\n0\r\n\r\n", "400"},
		{"data without its CRLF", "5\r\nhello0\r\n\r\n", "400"},

		{"cut in a size", "5", "cut short"},
		{"cut in the data", "5\r\nhel", "cut short"},
		{"cut behind the data", "5\r\nhello", "cut short"},
		{"cut before the last chunk", "5\r\nhello\r\n", "cut short"},
		{"cut behind the last chunk", "5\r\nhello\r\n0\r\n", "cut short"},
		{"cut in a trailer", "0\r\nA: b", "cut short"},
		{"cut behind a trailer", "0\r\nA: b\r\n", "cut short"},
		{"nothing at all", "", "cut short"},
	})
}

func TestTrailers(t *testing.T) {
	checkVerdicts(t, chunked, []verdict{
		{"they are kept", "1\r\na\r\n0\r\nX-Sum: 1\r\nx-b:2\r\n\r\nnext", `"a" X-Sum=1 x-b=2 then "next"`},
		{"what would frame, route or authorise is dropped",
			"0\r\nContent-Length: 5\r\nTRANSFER-ENCODING: chunked\r\nHost: b\r\nAuthorization: c\r\nCookie: d\r\nConnection: e\r\nX: y\r\n\r\n", `"" X=y`},
		{"no colon", "0\r\nX\r\n\r\n", "400"},
		{"a space before the colon", "0\r\nX : y\r\n\r\n", "400"},
		{"a folded line", "0\r\nX: y\r\n z\r\n\r\n", "400"},
		{"a bare LF", "0\r\nX: y\n\r\n", "400"},
		{"a bare CR", "0\r\nX: y\rz\r\n\r\n", "400"},
		{"a request in their place", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		{"too many", "0\r\n" + strings.Repeat("A: b\r\n", 129) + "\r\n", "431"},
		{"too large", "0\r\n" + strings.Repeat("A: "+strings.Repeat("x", 2000)+"\r\n", 9) + "\r\n", "431"},
		{"too large, were they not dropped", "0\r\n" + strings.Repeat("Host: "+strings.Repeat("x", 2000)+"\r\n", 9) + "\r\n", "431"},
	})
}

func TestChunkedLimits(t *testing.T) {
	checkVerdicts(t, chunked, []verdict{
		{"a long line", "1;" + strings.Repeat("x", 4<<10-4) + "\r\na\r\n0\r\n\r\n", `"a"`},
		{"a longer line", "1;" + strings.Repeat("x", 4<<10-3) + "\r\na\r\n0\r\n\r\n", "400"},
		{"a line without end", "1;" + strings.Repeat("x", 5<<10), "400"},
		{"small chunks", strings.Repeat("1\r\na\r\n", 5000) + "0\r\n\r\n", fmt.Sprintf("%q", strings.Repeat("a", 5000))},
		{"small chunks with extensions", strings.Repeat("1;a=b\r\na\r\n", 5000) + "0\r\n\r\n", fmt.Sprintf("%q", strings.Repeat("a", 5000))},
		{"small chunks that are all extension", strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 250) + "0\r\n\r\n", "400"},
	})
}

// Ready is what decides whether gathered output may wait: were it true too
// often, a client would wait for a chunk that is here.
func TestReadyAndComplete(t *testing.T) {
	const yes, no = true, false
	for _, c := range []struct {
		name, raw       string
		read            int // chunks taken first
		ready, complete bool
	}{
		{"nothing is here", "", 0, no, no},
		{"half a size", "5", 0, no, no},
		{"a size", "5\r\n", 0, no, no},
		{"a byte of the data", "5\r\nh", 0, yes, no},
		{"a chunk, and not the end of its data", "5\r\nhello", 1, no, no},
		{"a chunk, and not the next size", "5\r\nhello\r\n", 1, no, no},
		{"a chunk, and the next size", "5\r\nhello\r\n1\r\n", 1, no, no},
		{"a chunk, and data of the next", "5\r\nhello\r\n2\r\n!", 1, yes, no},
		{"a chunk, and half of the last", "5\r\nhello\r\n0\r\n", 1, no, no},
		{"a chunk, and half the trailers", "5\r\nhello\r\n0\r\nA: b\r\n", 1, no, no},
		{"a chunk, and the last", "5\r\nhello\r\n0\r\n\r\n", 1, yes, yes},
		{"all of it", "5\r\nhello\r\n0\r\nA: b\r\n\r\n", 0, yes, yes},
		{"something broken", "x\r\n", 0, yes, no},
		{"the next message, behind the end", "0\r\n\r\nGET / HTTP/1.1\r\n", 1, yes, yes},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := wire.New(&script{in: []byte(c.raw), piece: len(c.raw)})
			defer conn.Free()
			if c.raw != "" {
				if err := conn.Fill(len(c.raw), wire.LargeBuffer); err != nil {
					t.Fatal(err)
				}
			}
			var body http1.Body
			var trailers exchange.Fields
			body.BeginChunked(conn, &trailers)
			for range c.read {
				_, _ = body.Next()
			}
			if got := body.Ready(); got != c.ready {
				t.Errorf("Ready is %v", got)
			}
			if got := body.Complete(); got != c.complete {
				t.Errorf("Complete is %v", got)
			}
		})
	}
}

func TestSizedAndUntilClose(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		size      int64 // -1: until close
		want      string
		left      string
		err       bool
	}{
		{"as long as said", "hello", 5, "hello", "", false},
		{"what follows is the next message's", "hello!", 5, "hello", "!", false},
		{"cut short", "hell", 5, "hell", "", true},
		{"nothing came", "", 5, "", "", true},
		{"to the end", "hello", -1, "hello", "", false},
		{"to the end at once", "", -1, "", "", false},
	} {
		for _, piece := range []int{1, 2, 100} {
			t.Run(fmt.Sprintf("%s, by %d", c.name, piece), func(t *testing.T) {
				s := &script{in: []byte(c.raw), piece: piece}
				conn := wire.New(s)
				defer conn.Free()
				var body http1.Body
				if body.BeginSized(conn, c.size); c.size < 0 {
					body.BeginUntilClose(conn)
				}
				if got := body.Length(); got != c.size {
					t.Errorf("Length is %d", got)
				}
				got, err := readAll(&body)
				if left := string(conn.Buffered()) + string(s.in); got != c.want || left != c.left || (err != nil) != c.err {
					t.Errorf("got %q, left %q, %v", got, left, err)
				}
				if done := body.Done(); done != (c.size >= 0 && !c.err) {
					t.Errorf("Done is %v", done)
				}
			})
		}
	}
}
