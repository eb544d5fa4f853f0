// Package schema judges JSON values by JSON Schemas, within bounds.
//
//	document ─▶ Compiler ─▶ Schema ─┐
//	bytes    ─▶ Reader   ─▶ Value  ─┴▶ Schema.Check ─▶ violations
//
// Schemas are read by a library (references, dialects, the checks of a schema
// itself); what is done for each request is here. A schema is its author's, the value
// a stranger's, and both together decide what a check costs: with recursive
// alternatives that is exponential in the depth of the value. So each check has a
// budget that grows with the value alone.
//
// # Promises
//
//   - Values are as the library sees them: what it takes is taken, what it refuses is
//     refused (a fuzz target compares them), but for what is beyond the bounds.
//   - A value is read once, strictly by RFC 8259: no name twice in an object, no broken
//     UTF-8. Depth, numbers and the work of a check are bounded.
//   - Patterns are RE2: their cost is linear in the text.
//   - Schemas are immutable, and may be used by any number of goroutines.
package schema

import (
	"math/big"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Violation is what is wrong with a value.
type Violation struct {
	Pointer string // to the value (RFC 6901)
	Rule    string // the keyword, such as "required"
	Schema  string // where the rule is: a pointer into the document, with "#"
	Detail  string // in words, without the value
}

// types are a set of JSON's types.
type types uint8

const (
	null types = 1 << iota
	boolean
	number
	integer
	text
	array
	object
)

var typeNames = map[string]types{
	"null": null, "boolean": boolean, "number": number, "integer": integer, "string": text, "array": array, "object": object,
}

// Schema is one compiled schema, with those that it refers to.
type Schema struct {
	at      string
	always  *bool // a schema that is true or false
	ref     *Schema
	only    bool // what stands beside ref does not count (before 2019-09)
	types   types
	enum    map[string]bool // canonical
	konst   *string         // canonical
	format  *jsonschema.Format
	all     []*Schema
	any     []*Schema
	one     []*Schema
	not     *Schema
	when    *Schema // if
	then    *Schema
	orElse  *Schema
	objects *objects
	arrays  *arrays
	strings *texts
	numbers *numbers
}

// objects are the rules for objects.
type objects struct {
	least, most int // -1: no such rule
	required    []string
	properties  map[string]*Schema
	patterns    []patterned
	additional  *Schema
	names       *Schema
	dependent   map[string][]string
	dependents  map[string]*Schema
	unevaluated *Schema
}

type patterned struct {
	pattern jsonschema.Regexp
	schema  *Schema
}

// arrays are the rules for arrays.
type arrays struct {
	least, most           int
	unique                bool
	prefix                []*Schema
	items                 *Schema
	contains              *Schema
	leastThere, mostThere int
	containsCounts        bool // as evaluated
	unevaluated           *Schema
}

// texts are the rules for strings.
type texts struct {
	least, most int
	pattern     jsonschema.Regexp
}

// numbers are the rules for numbers.
type numbers struct {
	least, most, above, below *bound
	multiple                  *big.Rat
}

// bound is a limit, and the same as an integer and as a float where it is one.
type bound struct {
	rat     *big.Rat
	small   int64
	whole   bool
	float   float64
	precise bool
}
