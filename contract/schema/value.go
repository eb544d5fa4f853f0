package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what is read. Bytes are the caller's to bound.
const (
	MaxDepth = 64
	// What a number may look like: beyond, arithmetic with it costs more than its text.
	maxDigits   = 100
	maxExponent = 400
)

// Value is a JSON value. Its memory is the Reader's, and the text's that was read.
type Value struct {
	kind     types
	truth    bool
	text     []byte  // of a string; how a number is written
	elements []Value // of an array; of an object each name, then its value
}

// Reader reads values. It may be used again: the values read before are gone then.
type Reader struct {
	in     bytes.Reader
	from   *jsontext.Decoder
	raw    []byte
	stack  []Value
	arena  []Value
	texts  []byte
	values int
}

// Read reads the one value that a text is. Keep the text as it is while the value is
// in use.
func (r *Reader) Read(b []byte) (Value, error) {
	r.reset(b)
	v, err := r.value(0)
	if err != nil {
		return Value{}, err
	}
	if _, err := r.from.ReadToken(); err != io.EOF {
		return Value{}, fmt.Errorf("offset %d: more follows the value", r.from.InputOffset())
	}
	return v, nil
}

func (r *Reader) reset(b []byte) {
	r.in.Reset(b)
	r.raw = b
	if r.from == nil {
		r.from = jsontext.NewDecoder(&r.in)
	} else {
		r.from.Reset(&r.in)
	}
	r.stack, r.arena, r.texts, r.values = r.stack[:0], r.arena[:0], r.texts[:0], 0
}

func (r *Reader) value(depth int) (Value, error) {
	r.values++
	switch r.from.PeekKind() {
	case '{', '[':
		return r.container(depth + 1)
	}
	raw, err := r.from.ReadValue()
	if err != nil {
		return Value{}, r.wrong(err)
	}
	at := r.from.InputOffset()
	here := r.raw[at-int64(len(raw)) : at] // the same, but not the decoder's
	switch raw[0] {
	case 'n':
		return Value{kind: null}, nil
	case 't', 'f':
		return Value{kind: boolean, truth: raw[0] == 't'}, nil
	case '"':
		return r.text(here)
	}
	if err := checkNumber(here); err != nil {
		return Value{}, fmt.Errorf("offset %d: %w", at-int64(len(raw)), err)
	}
	return Value{kind: number, text: here}, nil
}

// text takes a string from between its quotes.
func (r *Reader) text(quoted []byte) (Value, error) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return Value{kind: text, text: inner}, nil
	}
	from := len(r.texts)
	var err error
	if r.texts, err = jsontext.AppendUnquote(r.texts, quoted); err != nil {
		return Value{}, r.wrong(err)
	}
	return Value{kind: text, text: r.texts[from:len(r.texts):len(r.texts)]}, nil
}

func (r *Reader) container(depth int) (Value, error) {
	if depth > MaxDepth {
		return Value{}, fmt.Errorf("offset %d: values are nested deeper than %d", r.from.InputOffset(), MaxDepth)
	}
	open, err := r.from.ReadToken()
	if err != nil {
		return Value{}, r.wrong(err)
	}
	v := Value{kind: array}
	if open.Kind() == '{' {
		v.kind = object
	}
	base := len(r.stack)
	for k := r.from.PeekKind(); k != ']' && k != '}'; k = r.from.PeekKind() {
		element, err := r.value(depth)
		if err != nil {
			return Value{}, err
		}
		r.stack = append(r.stack, element)
	}
	if _, err := r.from.ReadToken(); err != nil {
		return Value{}, r.wrong(err)
	}
	v.elements = r.keep(r.stack[base:])
	r.stack = r.stack[:base]
	return v, nil
}

// keep moves elements to where they stay.
func (r *Reader) keep(elements []Value) []Value {
	if cap(r.arena)-len(r.arena) < len(elements) {
		r.arena = make([]Value, 0, max(64, 2*cap(r.arena), len(elements))) // those before stay where they are
	}
	from := len(r.arena)
	r.arena = append(r.arena, elements...)
	return r.arena[from:len(r.arena):len(r.arena)]
}

// wrong says what is wrong without the library's name.
func (r *Reader) wrong(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it ends too early")
	case errors.As(err, &syntax) && errors.Is(syntax.Err, jsontext.ErrDuplicateName):
		return fmt.Errorf("offset %d: a name is there twice", syntax.ByteOffset)
	case errors.As(err, &syntax):
		return fmt.Errorf("offset %d: %w", syntax.ByteOffset, syntax.Err)
	}
	return err
}

func checkNumber(b []byte) error {
	digits, exponent, _ := bytes.Cut(b, []byte("e"))
	if len(digits) == len(b) {
		digits, exponent, _ = bytes.Cut(b, []byte("E"))
	}
	if len(digits) > maxDigits {
		return fmt.Errorf("a number has more than %d digits", maxDigits)
	}
	if len(exponent) > 0 {
		if n, err := strconv.Atoi(string(exponent)); err != nil || n > maxExponent || n < -maxExponent {
			return fmt.Errorf("a number's exponent is beyond %d", maxExponent)
		}
	}
	return nil
}

// small is a number as an integer, where it is written as one and fits.
func (v *Value) small() (int64, bool) {
	if len(v.text) > 18 {
		return 0, false
	}
	var n int64
	digits := v.text
	if digits[0] == '-' {
		digits = digits[1:]
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	if v.text[0] == '-' {
		n = -n
	}
	return n, true
}

func (v *Value) rat() *big.Rat {
	n, _ := new(big.Rat).SetString(string(v.text)) // its text was checked
	return n
}

// whole: the number is an integer, however it is written.
func (v *Value) whole() bool {
	if _, ok := v.small(); ok {
		return true
	}
	return v.rat().IsInt()
}

// appendCanonical writes a value so that equal ones are written alike.
func (v *Value) appendCanonical(b []byte) []byte {
	switch v.kind {
	case null:
		return append(b, 'n')
	case boolean:
		return strconv.AppendBool(b, v.truth)
	case number:
		if n, ok := v.small(); ok {
			return append(strconv.AppendInt(append(b, '#'), n, 10), ';')
		}
		if n := v.rat(); n.IsInt() {
			return append(append(append(b, '#'), n.Num().String()...), ';')
		} else {
			return append(append(append(b, '#'), n.String()...), ';')
		}
	case text:
		return appendText(b, v.text)
	case array:
		b = append(b, '[')
		for i := range v.elements {
			b = v.elements[i].appendCanonical(b)
		}
		return append(b, ']')
	}
	order := make([]int, 0, len(v.elements)/2)
	for i := 0; i < len(v.elements); i += 2 {
		order = append(order, i)
	}
	slices.SortFunc(order, func(i, j int) int { return bytes.Compare(v.elements[i].text, v.elements[j].text) })
	b = append(b, '{')
	for _, i := range order {
		b = v.elements[i+1].appendCanonical(appendText(b, v.elements[i].text))
	}
	return append(b, '}')
}

func appendText(b, t []byte) []byte {
	b = append(strconv.AppendInt(append(b, '"'), int64(len(t)), 10), ':')
	return append(b, t...)
}
