package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// Regular expressions are RE2's, so a text takes a time that grows with its length
// and with the expression's, and no more.

var expressionCalls = []foreign{
	{"weir.regexp", "reads a regular expression", readExpression},
	{"weir.regexp_find", "finds the first match of an expression", findMatch},
	{"weir.regexp_replace", "replaces the matches of an expression", replaceMatches},
}

// expression is one that is compiled, and what a byte of text costs it.
type expression struct {
	*regexp.Regexp
	perByte int64
}

func readExpression(v *vm, pattern []byte) ([]byte, abi.Status) {
	return v.made("regexp", pattern, func(pattern []byte) (any, error) { return newExpression(string(pattern)) })
}

func newExpression(pattern string) (*expression, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("the expression is longer than %d bytes", maxPattern)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	size := sizeOfExpression(parsed)
	if size > maxInstructions {
		return nil, errors.New("the expression is too large: its repetitions multiply")
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return &expression{compiled, fuelPerTextByte + size*fuelPerInstruction}, nil
}

// sizeOfExpression is about how many instructions an expression compiles to, which
// repetitions multiply. It stops counting where it is too many.
func sizeOfExpression(r *syntax.Regexp) int64 {
	n := int64(1)
	if r.Op == syntax.OpLiteral {
		n = int64(len(r.Rune))
	}
	for _, sub := range r.Sub {
		if n += sizeOfExpression(sub); n > maxInstructions {
			return n
		}
	}
	if r.Op == syntax.OpRepeat {
		n *= int64(max(r.Min, r.Max, 1))
	}
	return n
}

// expression is the one that the first argument names.
func (v *vm) expression(a *arguments) (*expression, bool) {
	e, _, ok := objectOf[*expression](v, a.number())
	return e, ok
}

func (v *vm) payText(e *expression, text []byte) bool {
	if len(text) > maxText {
		return false
	}
	v.draw(fuelPerSearch + int64(len(text))*e.perByte)
	v.settle()
	return true
}

// findMatch returns where the first match and its groups begin and end, two numbers
// each; a group that took no part has the largest number twice, no match nothing.
func findMatch(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	e, ok := v.expression(&a)
	text := a.rest()
	if !ok || a.bad || !v.payText(e, text) {
		return nil, abi.BadArgument
	}
	v.scratch = v.scratch[:0]
	for _, at := range e.FindSubmatchIndex(text) {
		v.scratch = binary.LittleEndian.AppendUint32(v.scratch, uint32(at))
	}
	return v.scratch, abi.OK
}

// replaceMatches puts what a template makes of each match ($1, ${name}) in its place.
// A search for many matches may go through all the text for each of them, so the
// matches are paid for in rounds, each before it is made.
func replaceMatches(v *vm, b []byte) ([]byte, abi.Status) {
	a := argumentsOf(b)
	e, ok := v.expression(&a)
	template, text := a.bytes(), a.rest()
	if !ok || a.bad || len(template) > maxPattern || len(text) > maxText {
		return nil, abi.BadArgument
	}
	var matches [][]int
	for n := 2; ; n *= 4 {
		if n > maxMatches {
			return nil, abi.BadArgument
		}
		for range n {
			v.payText(e, text)
		}
		if matches = e.FindAllSubmatchIndex(text, n); len(matches) < n {
			break
		}
	}
	return v.expand(e, template, text, matches)
}

func (v *vm) expand(e *expression, template, text []byte, matches [][]int) ([]byte, abi.Status) {
	out, last := v.scratch[:0], 0
	references := bytes.Count(template, []byte("$"))
	for _, match := range matches {
		grows := match[0] - last + len(template) + references*(match[1]-match[0])
		if len(out)+grows > maxReplaced {
			return nil, abi.BadArgument
		}
		v.drawBytes(grows)
		out = append(out, text[last:match[0]]...)
		out = e.Expand(out, template, text, match)
		last = match[1]
	}
	v.scratch = append(out, text[last:]...)
	return v.scratch, abi.OK
}
