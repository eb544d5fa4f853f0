// Package contract is OpenAPI documents (3.0, 3.1) at work: what may be asked, what
// may be answered, and what is wrong with it.
//
//	text ─▶ Compile ─▶ Contract.Find(method, path) ─▶ Operation
//	                                                    │
//	                              Checker.Request, ─────┴─▶ violations
//	                              Checker.Body, Checker.Response
//
// A document is checked and compiled once, when it is declared, and again by each
// proxy. It is whole: what it refers to is in it. A request is compared with the
// operation that its method and path are; a path or a method that the document has
// not got is a violation like others.
//
// # Promises
//
//   - A Contract is immutable, and may be used by any number of goroutines; a Checker
//     belongs to one at a time.
//   - What a check costs is bounded by the size of what is checked (see package
//     schema). Violations name where and which rule, and repeat no more than names of
//     what the client sent.
//   - A document that is refused is refused with all its problems, each with a line and
//     a pointer, as far as they can be told apart.
package contract

import (
	"fmt"
	"strings"

	"github.com/weirmesh/weir/contract/schema"
)

// MaxDocument is how long a document may be, in bytes.
const MaxDocument = 2 << 20

// Problem is one thing that is wrong with a document.
type Problem struct {
	Line, Column int    // from 1; 0: of the document as a whole
	Pointer      string // RFC 6901
	Reason       string
}

func (p Problem) String() string {
	where := p.Pointer
	if where == "" {
		where = "/"
	}
	if p.Line == 0 {
		return where + ": " + p.Reason
	}
	return fmt.Sprintf("line %d: %s: %s", p.Line, where, p.Reason)
}

// Problems is why a document is refused.
type Problems []Problem

func (p Problems) Error() string {
	var all []string
	for _, one := range p {
		all = append(all, one.String())
	}
	return strings.Join(all, "\n")
}

// maxProblems is how many are named.
const maxProblems = 20

// Contract is a document that was compiled.
type Contract struct {
	Title, Version string // the document's own words: info.title, info.version
	operations     []*Operation
	bases          []string // paths that operations stand below: "", "/v1"
	paths          paths
}

// Operations are all that may be asked, as the document has them in order of their
// paths.
func (c *Contract) Operations() []*Operation { return c.operations }

// Operation is a method of a path.
type Operation struct {
	Method, Path string // "GET", "/books/{isbn}"
	// Name is the document's operationId, or method and path.
	Name       string
	Deprecated bool

	parameters []*parameter
	required   bool // the body
	body       contents
	responses  map[string]*response // "200", "2XX", "default"
}

// TakesBody reports whether the body of a request is looked at.
func (o *Operation) TakesBody() bool { return o.body != nil }

// response is what may be answered with a status.
type response struct {
	headers []*parameter
	body    contents
}

// Violation is what is wrong with a request or a response.
type Violation struct {
	In   string // "path", "query", "header", "cookie", "method", "body", "status"
	Name string // of a parameter or field
	schema.Violation
}

func (v Violation) String() string {
	where := v.In
	if v.Name != "" {
		where += " " + v.Name
	}
	if v.Pointer != "" {
		where += " " + v.Pointer
	}
	return where + ": " + v.Detail
}
