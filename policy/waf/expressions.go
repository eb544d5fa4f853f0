package waf

import (
	"regexp"
	"strconv"
	"unicode/utf8"

	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
	"rsc.io/binaryregexp"

	"github.com/weirmesh/weir/policy/waf/dfa"
)

// The engine's @rx walks package regexp's machine for each expression and value,
// which was a third of what a small request cost. Ours, in its place, answers the
// question that nearly always is answered with no by an automaton.

// maxCaptured is how many parts of a match rules may refer to, the whole being one.
const maxCaptured = 9

// rx is an expression in UTF-8.
type rx struct{ matcher *dfa.Matcher }

// binaryRx is an expression that has bytes which are no UTF-8.
type binaryRx struct{ re *binaryregexp.Regexp }

// newRx implements plugintypes.OperatorFactory. As the engine's own: a dot is any
// character, and ^ and $ are those of a line.
func newRx(o plugintypes.OperatorOptions) (plugintypes.Operator, error) {
	if binary(o.Arguments) {
		re, err := once(o, "rx bytes:", func() (*binaryregexp.Regexp, error) { return binaryregexp.Compile(o.Arguments) })
		if err != nil {
			return nil, err
		}
		return binaryRx{re}, nil
	}
	matcher, err := once(o, "rx:", func() (*dfa.Matcher, error) { return dfa.Compile("(?sm)" + o.Arguments) })
	if err != nil {
		return nil, err
	}
	return rx{matcher}, nil
}

// once compiles what rulesets with the same arguments share.
func once[T any](o plugintypes.OperatorOptions, kind string, compile func() (T, error)) (T, error) {
	if o.Memoizer == nil {
		return compile()
	}
	v, err := o.Memoizer.Do(kind+o.Arguments, func() (any, error) { return compile() })
	if err != nil {
		var none T
		return none, err
	}
	return v.(T), nil
}

// Evaluate implements plugintypes.Operator.
func (o rx) Evaluate(tx plugintypes.TransactionState, value string) bool {
	if !tx.Capturing() {
		return o.matcher.Match(value)
	}
	return capture(tx, value, o.matcher.Submatches(value))
}

// Evaluate implements plugintypes.Operator.
func (o binaryRx) Evaluate(tx plugintypes.TransactionState, value string) bool {
	if !tx.Capturing() {
		return o.re.MatchString(value)
	}
	return capture(tx, value, o.re.FindStringSubmatchIndex(value))
}

// capture gives a match's parts to the rule that asked for them.
func capture(tx plugintypes.TransactionState, value string, parts []int) bool {
	for i := range min(len(parts)/2, maxCaptured) {
		part := ""
		if parts[2*i] >= 0 {
			part = value[parts[2*i]:parts[2*i+1]]
		}
		tx.CaptureField(i, part)
	}
	return parts != nil
}

var hexByte = regexp.MustCompile(`\\x(?:\{([0-9A-Fa-f]{2})[^}]*\}|([0-9A-Fa-f]{2}))`)

// binary reports whether an expression's escaped bytes are no UTF-8.
func binary(expression string) bool {
	decoded := hexByte.ReplaceAllFunc([]byte(expression), func(escape []byte) []byte {
		parts := hexByte.FindSubmatch(escape)
		b, err := strconv.ParseUint(string(parts[1])+string(parts[2]), 16, 8)
		if err != nil {
			return escape
		}
		return []byte{byte(b)}
	})
	return !utf8.Valid(decoded)
}
