package wasm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// What of Redis's protocol, RESP, the host must know: where a command ends that a guest
// has written, which one it is, and where an answer ends. The rest is the guest's.

const (
	// maxArguments is how many arguments a command has, with its name.
	maxArguments = 64 << 10
	// maxNesting is how deep an answer's arrays are.
	maxNesting = 32
	// answerStep is how much memory is taken for an answer before it is there.
	answerStep = 64 << 10
)

var (
	errNoCommand = errors.New("it is not one command: an array of bulk strings, and nothing behind it")
	errNested    = fmt.Errorf("its answer is nested deeper than %d", maxNesting)
	errNoRESP    = errors.New("the service does not speak Redis's protocol")
)

// parseCommand takes a command apart. What it returns are parts of b.
func parseCommand(b []byte) (arguments [][]byte, err error) {
	n, b, ok := lengthLine(b, '*')
	if !ok || n < 1 || n > maxArguments {
		return nil, errNoCommand
	}
	for range n {
		size, rest, ok := lengthLine(b, '$')
		if !ok || size < 0 || len(rest) < size+2 || rest[size] != '\r' || rest[size+1] != '\n' {
			return nil, errNoCommand
		}
		arguments = append(arguments, rest[:size])
		b = rest[size+2:]
	}
	if len(b) > 0 {
		return nil, errNoCommand
	}
	return arguments, nil
}

// lengthLine reads the line that begins an array or a bulk string.
func lengthLine(b []byte, kind byte) (n int, rest []byte, ok bool) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) < 2 || len(line) > 11 || line[0] != kind || line[1] < '0' || line[1] > '9' {
		return 0, nil, false
	}
	n, err := strconv.Atoi(string(line[1:]))
	return n, rest, err == nil
}

func appendCommand(dst []byte, arguments ...string) []byte {
	dst = fmt.Appendf(dst, "*%d\r\n", len(arguments))
	for _, a := range arguments {
		dst = fmt.Appendf(dst, "$%d\r\n%s\r\n", len(a), a)
	}
	return dst
}

// notShared are the commands that change the connection for who asks next over it, or
// that keep it: until something happens, or for what the server sends by itself.
var notShared = func() map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq(`AUTH HELLO SELECT CLIENT RESET QUIT READONLY READWRITE ASKING
		MULTI EXEC DISCARD WATCH UNWATCH
		SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC REPLCONF
		BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF`) {
		names[name] = true
	}
	return names
}()

// keepsTo says why a command may not be sent over a connection that others use.
func keepsTo(arguments [][]byte) error {
	name := strings.ToUpper(string(arguments[0][:min(len(arguments[0]), 32)]))
	refused := notShared[name]
	switch name {
	case "XREAD", "XREADGROUP":
		// Its options end with STREAMS, behind which anything may be a key.
		for _, a := range arguments[1:] {
			if bytes.EqualFold(a, []byte("STREAMS")) {
				break
			}
			refused = refused || bytes.EqualFold(a, []byte("BLOCK"))
		}
	case "SCRIPT":
		refused = len(arguments) > 1 && bytes.EqualFold(arguments[1], []byte("DEBUG"))
	}
	if refused {
		return fmt.Errorf("%s would change or keep a connection that others use", clip(name))
	}
	return nil
}

// readAnswer reads one answer of RESP2 or RESP3, as it travels. It is bounded in
// length and in depth.
func readAnswer(r *bufio.Reader, limit int) (answer []byte, err error) {
	left := []int{1} // values that are still to come, at each depth
	for len(left) > 0 {
		last := len(left) - 1
		if left[last] == 0 {
			left = left[:last]
			continue
		}
		begin := len(answer)
		if answer, err = readLine(r, answer, limit); err != nil {
			return nil, err
		}
		line := answer[begin : len(answer)-2]
		if len(line) == 0 {
			return nil, errNoRESP
		}
		left[last]--
		inside := 0
		switch line[0] {
		case '+', '-', ':', '_', '#', ',', '(':
			continue
		case '$', '!', '=':
			if answer, err = readBulk(r, answer, line, limit); err != nil {
				return nil, err
			}
			continue
		case '*', '~':
			inside = 1
		case '%':
			inside = 2
		case '|': // attributes are before the value that they are of
			inside = 2
			left[last]++
		default: // '>' is what nobody asked for
			return nil, errNoRESP
		}
		n, err := answerLength(line)
		switch {
		case err != nil:
			return nil, err
		case n > limit: // each is of three bytes and more
			return nil, errAnswerTooLarge
		case len(left) == maxNesting:
			return nil, errNested
		case n > 0:
			left = append(left, n*inside)
		}
	}
	return answer, nil
}

// answerLength is what stands behind the kind; -1: there is nothing, not even an
// empty string or array.
func answerLength(line []byte) (int, error) {
	n, err := strconv.Atoi(string(line[1:min(len(line), 12)]))
	if err != nil || n < -1 || len(line) > 12 {
		return 0, errNoRESP
	}
	return n, nil
}

func readLine(r *bufio.Reader, dst []byte, limit int) ([]byte, error) {
	begin := len(dst)
	for {
		part, err := r.ReadSlice('\n')
		if len(dst)+len(part) > limit {
			return nil, errAnswerTooLarge
		}
		dst = append(dst, part...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return nil, cutOff(err, len(dst))
		case len(dst)-begin < 2 || dst[len(dst)-2] != '\r':
			return nil, errNoRESP
		}
		return dst, nil
	}
}

func readBulk(r *bufio.Reader, dst, line []byte, limit int) ([]byte, error) {
	n, err := answerLength(line)
	switch {
	case err != nil:
		return nil, err
	case n < 0:
		return dst, nil
	case n+2 > limit-len(dst):
		return nil, errAnswerTooLarge
	}
	for n += 2; n > 0; {
		step := min(n, answerStep)
		at := len(dst)
		dst = slices.Grow(dst, step)[:at+step]
		if _, err := io.ReadFull(r, dst[at:]); err != nil {
			return nil, cutOff(err, at)
		}
		n -= step
	}
	if !bytes.HasSuffix(dst, []byte("\r\n")) {
		return nil, errNoRESP
	}
	return dst, nil
}

// cutOff is io.EOF only before an answer.
func cutOff(err error, read int) error {
	if err == io.EOF && read > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}
