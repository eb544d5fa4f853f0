package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// Meta is a schema of documents, which are few and trusted more than requests: the
// library checks them, and says more about what is wrong.
type Meta struct{ schema *jsonschema.Schema }

// NewMeta compiles the text of a schema.
func NewMeta(text string) (*Meta, error) {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read schema of documents: %w", err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{})
	const url = "contract:///meta"
	if err := c.AddResource(url, document); err != nil {
		return nil, fmt.Errorf("read schema of documents: %w", err)
	}
	s, err := c.Compile(url)
	if err != nil {
		return nil, fmt.Errorf("compile schema of documents: %w", err)
	}
	return &Meta{s}, nil
}

// Check says what is wrong with a document: of what alternatives say the most telling
// thing alone, which is the deepest.
func (m *Meta) Check(document any) (all []Problem) {
	var wrong *jsonschema.ValidationError
	if err := m.schema.Validate(document); !errors.As(err, &wrong) {
		return nil
	}
	collect(wrong, &all)
	slices.SortStableFunc(all, func(a, b Problem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return slices.Compact(all)
}

func collect(e *jsonschema.ValidationError, all *[]Problem) {
	switch e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf:
		if best := deepest(e); best != nil {
			e = best
		}
	}
	if len(e.Causes) == 0 {
		*all = append(*all, Problem{Pointer: pointerTo(e.InstanceLocation), Reason: words(e)})
		return
	}
	for _, c := range e.Causes {
		collect(c, all)
	}
}

// deepest is the leaf that is farthest down in the document; of those that are equally
// far, not one that wants a reference there.
func deepest(e *jsonschema.ValidationError) (best *jsonschema.ValidationError) {
	if len(e.Causes) == 0 {
		return e
	}
	rank := func(e *jsonschema.ValidationError) int {
		r := 2 * len(e.InstanceLocation)
		if k, ok := e.ErrorKind.(*kind.Required); ok && slices.Equal(k.Missing, []string{"$ref"}) {
			r -= 3
		}
		return r
	}
	for _, c := range e.Causes {
		if d := deepest(c); best == nil || rank(d) > rank(best) {
			best = d
		}
	}
	return best
}
